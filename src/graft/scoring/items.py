"""items.parquet: one row per item, with what was asked, what was right, what each system gave, and the scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft import metrics
from graft.data.task import Record
from graft.files import writing


def write_items(
    target: str | Path, systems: Mapping[str, Sequence[Record]], where: Sequence[str], names: Sequence[str]
) -> None:
    """Write the records of several systems on the same rows, side by side.

    There is a column `SYSTEM_output` and, for each metric in `names` with a score per item, `SYSTEM_METRIC`. What is no
    text is written as JSON. `where`: the origin of each row, by item.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = next(iter(systems.values()))
    columns: dict[str, list[Any]] = {
        "item": [record["item"] for record in first],
        "where": [where[record["item"]] if record["item"] < len(where) else "" for record in first],
        "input": [record["input"] for record in first],
        "reference": [_text(record["reference"]) for record in first],
    }
    for system, records in systems.items():
        if "output" in records[0]:
            columns[f"{system}_output"] = [_text(record["output"]) for record in records]
        for name in ("loss", "tokens"):
            if all(name in record for record in records):
                columns[f"{system}_{name}"] = [record[name] for record in records]
        for name in names:
            items = metrics.get(name).score(records).items
            if items is not None and f"{system}_{name}" not in columns:
                columns[f"{system}_{name}"] = items.tolist()
    with writing(target) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
