"""results.csv and results.parquet: one row for every board and contestant, scores and costs in columns of their own."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from graft.files import write_text, writing
from graft.page import costs
from graft.page.standings import Plain

COMPARED = ("outcome", "difference", "low", "high", "p", "smallest", "verdict")
TEXTS = {
    "board",
    "model",
    "data",
    "size",
    "task",
    "contestant",
    "kind",
    "family",
    "status",
    "error",
    "settings",
    "chosen",
}


def rows(standings: Plain) -> tuple[list[str], list[Plain]]:
    """The names of the columns and the rows; a column that a row has no value for is None there."""
    about = {each["name"]: each for each in standings["contestants"]}
    found = [
        _row(board, line, about.get(line["contestant"], {})) for board in standings["boards"] for line in board["lines"]
    ]
    names = list(dict.fromkeys(name for row in found for name in row))
    return names, [{name: row.get(name) for name in names} for row in found]


def write_csv(target: Path, standings: Plain) -> None:
    """Write the rows as CSV, atomically."""
    names, found = rows(standings)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    write_text(target, text.getvalue())


def write_parquet(target: Path, standings: Plain) -> None:
    """Write the rows as Parquet, atomically: texts, booleans, and numbers as doubles."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, found = rows(standings)
    columns = {name: pa.array([_typed(name, row[name]) for row in found], _type(name, pa)) for name in names}
    with writing(target) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _row(board: Plain, line: Plain, about: Plain) -> Plain:
    row: Plain = {
        "board": board["id"],
        "model": board["model"],
        "data": board["data"],
        "size": board["size"],
        "task": board.get("task"),
        **{f"rows_{split}": count for split, count in board["rows"].items()},
        "contestant": line["contestant"],
        "kind": about.get("kind"),
        "family": about.get("family"),
        "status": line["status"],
        "error": line.get("error"),
        **_interval("score", line.get("score")),
        "equal_to_best": line.get("equal_to_best"),
    }
    for side in ("against_best", "against_reference"):
        comparison = line.get(side) or {}
        flat = {
            **comparison,
            **(comparison.get("difference") or {}),
            "difference": (comparison.get("difference") or {}).get("value"),
        }
        row |= {f"{side}_{name}": flat.get(name) for name in COMPARED}
    for name, found in (line.get("metrics") or {}).items():
        row |= _interval(f"metric_{name}", found)
    spent = line.get("costs") or {}
    row |= {f"cost_{each.key}": spent.get(each.key) for each in costs.KNOWN}
    row |= {f"cost_{name}": value for name, value in spent.items()}
    scores = [run.get("score") for run in line.get("runs") or []]
    return row | {
        "seeds": len(scores), "settings": json.dumps(about.get("settings") or {}, ensure_ascii=False),
        "chosen": json.dumps(line.get("chosen") or {}, ensure_ascii=False),
    }  # fmt: skip


def _interval(name: str, found: Plain | None) -> Plain:
    keys = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return {column: (found or {}).get(key) for column, key in keys.items()}


def _is_text(name: str) -> bool:
    return name in TEXTS or name.endswith(("_outcome", "_verdict"))


def _type(name: str, pa: Any) -> Any:
    return pa.string() if _is_text(name) else pa.bool_() if name == "equal_to_best" else pa.float64()


def _typed(name: str, value: Any) -> Any:
    if value is None or name == "equal_to_best":
        return value
    return str(value) if _is_text(name) else float(value)
