"""Where rows come from: a file, a folder, files by split, a Hugging Face id, a `datasets` object, or any iterable."""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graft.data.columns import nearest
from graft.data.formats import READERS, read_file, suffix_of
from graft.data.formats.table import Table
from graft.data.rows import Row
from graft.data.splits import SPLITS
from graft.errors import BadInput

# Names that data sets give to their splits, as file names, folder names or splits of a Hugging Face data set.
NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_SHARD = re.compile(r"[-_.]?\d*(-of-\d+)?")
_FILES = re.compile(r"\s*(train|validation|test)\s*=")


def read_source(source: Any) -> dict[str, Table]:
    """Tables by split name; the only key is "" when the source has no splits.

    `source`: a path; `train=a.jsonl,test=b.jsonl`; an id as `owner/name` or `owner/name:configuration`; a mapping from
    split to a path or rows; a `datasets` Dataset or DatasetDict; an iterable of mappings. Raises BadInput when nothing
    is there, with what was looked for.
    """
    if isinstance(source, str) and _FILES.match(source):
        source = dict(_split_files(source))
    if isinstance(source, (str, Path)):
        return _read_path(source)
    library = sys.modules.get("datasets")
    if library is not None and isinstance(
        source, (library.Dataset, library.DatasetDict, library.IterableDataset, library.IterableDatasetDict)
    ):
        from graft.data.hub import tables

        return by_split(tables(source, "rows"), "the data set")
    if isinstance(source, Mapping):
        return _read_mapping(source)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return {"": _read_iterable(source, "rows")}
    raise BadInput(f"data: cannot read rows from {type(source).__name__}; give a path, an id or rows.")


def by_split(tables: dict[str, Table], name: str) -> dict[str, Table]:
    """Tables under graft's names of the splits. Splits of other names are left out, with a note."""
    named: dict[str, list[str]] = {}
    for split in tables:
        named.setdefault(split_of(split) or "", []).append(split)
    if set(named) == {""}:
        if len(tables) == 1:
            return {"": next(iter(tables.values()))}
        raise BadInput(f"{name}: which is train? There are {', '.join(tables)}. Write --data train=FILE,test=FILE.")
    for split, origins in named.items():
        if split and len({_SHARD.sub("", origin) for origin in origins}) > 1:
            raise BadInput(
                f"{name}: {' and '.join(origins)} could each be {split}. Choose, as in --data train=FILE,{split}=FILE."
            )
    chosen = {split: _joined([tables[origin] for origin in named[split]]) for split in SPLITS if split in named}
    if named.get(""):
        next(iter(chosen.values())).notes.append(f"{name}: not used: {', '.join(named[''])}")
    return chosen


def split_of(name: str) -> str | None:
    """The split that a file, folder or split name stands for: `train-00000-of-00002`, `dev`, `test`; or None."""
    word = re.match(r"[a-z]+", name.lower())
    return NAMES.get(word[0]) if word else None


def _read_path(source: str | Path) -> dict[str, Table]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.exists():
        return {"": read_file(path)}
    text = str(source)
    if suffix_of(path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or not text.strip():
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BadInput(f"data: there is no file or folder {text!r}{nearest(path.name, siblings)}.")
    from graft.data.hub import load_by_id

    return by_split(load_by_id(text), text)


def _read_folder(folder: Path) -> dict[str, Table]:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        from graft.data.hub import load_saved

        return by_split(load_saved(folder), str(folder))
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and suffix_of(path)]
    if not files:
        # The two other usual layouts: data/train-00000.parquet, and train/part-0.jsonl.
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        if [path.name for path in inner] == ["data"]:
            return _read_folder(inner[0])
        parts = {path.name: _parts(path) for path in inner if split_of(path.name) and _parts(path)}
        if parts:
            return by_split({name: _joined([read_file(path) for path in paths]) for name, paths in parts.items()},
                            str(folder))  # fmt: skip
        raise BadInput(f"{folder}: no data file in this folder; known are {', '.join(READERS)}.")
    named = [path for path in files if split_of(path.stem)]
    if not named:
        if len(files) > 1:
            names = {path.stem: Table() for path in files}
            return by_split(names, str(folder))
        return {"": read_file(files[0])}
    stems: dict[str, list[Table]] = {}
    unused = [path.name for path in files if path not in named]
    _check_choice(folder, named)
    for path in named:
        stems.setdefault(path.stem, []).append(read_file(path))
    tables = by_split({stem: _joined(tables) for stem, tables in stems.items()}, str(folder))
    if unused:
        next(iter(tables.values())).notes.append(f"{folder}: not used: {', '.join(unused)}")
    return tables


def _check_choice(folder: Path, named: list[Path]) -> None:
    """Refuse two formats of one split before reading both."""
    stems = [path.stem for path in named]
    twice = sorted({path.name for path in named if stems.count(path.stem) > 1})
    if twice:
        raise BadInput(f"{folder}: {' and '.join(twice)} have one name; choose, as in --data train=FILE,test=FILE.")


def _parts(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and suffix_of(path)]


def _read_mapping(source: Mapping[Any, Any]) -> dict[str, Table]:
    unknown = [str(split) for split in source if split not in SPLITS]
    if unknown or not source:
        found = ", ".join(unknown) or "nothing"
        raise BadInput(f"data: a mapping has the keys train, validation, test; this one has {found}.")
    tables = {}
    for split, part in source.items():
        read = read_source(part) if not isinstance(part, Mapping) else {}
        if list(read) != [""]:
            raise BadInput(f"data: {split} must be one file or one set of rows.")
        tables[split] = read[""]
    for split, table in tables.items():
        # Rows from memory are told apart by split.
        table.rows = [Row(row.cells, re.sub(r"^rows(?=:)", split, row.where)) for row in table.rows]
    return {split: tables[split] for split in SPLITS if split in tables}


def _read_iterable(rows: Iterable[Any], name: str) -> Table:
    table = Table()
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Mapping):
            table.rows.append(row if isinstance(row, Row) else Row(dict(row), f"{name}:{number}"))
        else:
            table.complain(f"{name}:{number}", f"a row must be a mapping with columns, this is {type(row).__name__}")
    return table


def _joined(tables: list[Table]) -> Table:
    joined = Table()
    for table in tables:
        joined.rows += table.rows
        joined.complaints += table.complaints
        joined.notes += table.notes
        joined.names |= table.names
    return joined


def _split_files(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        split, _, path = part.partition("=")
        pairs.append((split.strip(), path.strip()))
    names = [split for split, _ in pairs]
    if len(set(names)) < len(names):
        raise BadInput(f"data: a split is given twice in {text!r}.")
    return pairs
