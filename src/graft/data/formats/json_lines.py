"""JSON lines: one object per line."""

import json
import math
from pathlib import Path
from typing import Any

from graft.data.formats.table import Table, decode_lines
from graft.data.rows import Row


def read_json_lines(path: Path, content: bytes) -> Table:
    """Read one object per line; blank lines are skipped."""
    table = Table()
    for number, line in enumerate(decode_lines(path, content, table), start=1):
        if line is None or not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            add_object(table, json.loads(line), where)
        except (ValueError, RecursionError) as error:
            table.complain(where, f"not JSON: {error}")
    return table


def add_object(table: Table, value: Any, where: str) -> None:
    """Add a decoded value as a row, or complain when it is no object."""
    if isinstance(value, dict):
        problems = [f"column {key}: {problem}" for key, cell in value.items() if (problem := _unusable([key, cell]))]
        if problems:
            table.complain(where, "; ".join(problems))
        else:
            table.rows.append(Row(value, where))
    else:
        table.complain(where, f"a row must be an object with columns, this is {type(value).__name__}")


def _unusable(value: Any) -> str | None:
    """What JSON lets through and nothing can use: numbers that are not finite, and half a character."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no finite number"
    if isinstance(value, str) and not value.isascii():
        lone = next((character for character in value if "\ud800" <= character <= "\udfff"), None)
        return f"\\u{ord(lone):04x} is half of a character" if lone else None
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((problem for each in inside if (problem := _unusable(each))), None)
