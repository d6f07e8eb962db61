"""Data sets of the `datasets` library: in memory, saved to disk, or named by their Hugging Face id."""

from pathlib import Path
from typing import Any

from graft.data.formats.table import Table
from graft.data.rows import Row
from graft.errors import BadInput


def load_by_id(name: str) -> dict[str, Table]:
    """Load a data set by id, `owner/name` or `owner/name:configuration`, by split name.

    Raises BadInput when it cannot be had; code that comes with a data set is never run.
    """
    import datasets

    identity, _, configuration = name.partition(":")
    # The library raises a different error for each of the many ways in which this fails.
    try:
        loaded = datasets.load_dataset(identity, configuration or None)
    except Exception as error:
        raise BadInput(
            f"{name}: there is no file or folder of this name, and no data set of this id could be loaded: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        ) from error
    return tables(loaded, name)


def load_saved(folder: Path) -> dict[str, Table]:
    """Load what `save_to_disk` wrote, by split name ("" for a single data set)."""
    import datasets

    try:
        return tables(datasets.load_from_disk(str(folder)), str(folder))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder}: cannot be read as a saved data set: {error}") from error


def tables(data: Any, name: str) -> dict[str, Table]:
    """A Dataset or DatasetDict as tables by split name ("" for a single one)."""
    import datasets

    if isinstance(data, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        return {str(split): _table(part, f"{name}/{split}") for split, part in data.items()}
    return {"": _table(data, name)}


def class_names(features: Any) -> dict[str, list[str]]:
    """The names of numbered classes, by column, also for columns that are lists of classes."""
    import datasets

    names = {}
    for column, feature in (features or {}).items():
        inner = feature.feature if isinstance(feature, (datasets.List, datasets.LargeList)) else feature
        if isinstance(inner, datasets.ClassLabel) and inner.names:
            names[column] = list(inner.names)
    return names


def _table(data: Any, name: str) -> Table:
    rows = [Row(dict(cells), f"{name}:{number}") for number, cells in enumerate(data, start=1)]
    return Table(rows=rows, names=class_names(data.features))
