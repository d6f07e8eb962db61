"""JSON lines: one object per line."""

import json
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
        table.rows.append(Row(value, where))
    else:
        table.complain(where, f"a row must be an object with columns, this is {type(value).__name__}")
