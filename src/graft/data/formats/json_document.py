"""One JSON document: a list of objects, an object holding one such list, an object of columns, or lines after all."""

import json
import re
from collections.abc import Iterator
from json.decoder import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

from graft.data.formats.json_lines import add_object, read_json_lines
from graft.data.formats.table import Table, decode_lines

DECODER = JSONDecoder()
BLANK = re.compile(r"[ \t\n\r]*")


def read_json(path: Path, content: bytes) -> Table:
    """Read a JSON document. Each row knows the line on which it starts."""
    table = Table()
    lines = decode_lines(path, content, table)
    if table.complaints:
        return table
    text = "\n".join(line or "" for line in lines)
    if _is_lines(text):
        return read_json_lines(path, content)
    try:
        if _skip(text, 0) < len(text) and text[_skip(text, 0)] == "[":
            for line, value in _elements(text, _skip(text, 0)):
                add_object(table, value, f"{path}:{line}")
        else:
            _add_document(table, path, text)
    except JSONDecodeError as error:
        table.complain(f"{path}:{error.lineno}", f"not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        table.complain(f"{path}:1", f"not JSON: {error}")
    return table


def _is_lines(text: str) -> bool:
    """Whether a second object follows the first, which is what JSON lines named `.json` look like."""
    start = _skip(text, 0)
    if not text[start:].startswith("{"):
        return False
    try:
        _, end = DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        first = text[start:].split("\n", 1)[0].rstrip()
        return first.endswith("}") and "\n{" in text
    return _skip(text, end) < len(text)


def _elements(text: str, start: int) -> Iterator[tuple[int, Any]]:
    """The elements of the array at `start`, each with its line number. The rest of the text must be blank."""
    line, counted = 1, 0
    at = _skip(text, start + 1)
    if text[at : at + 1] != "]":
        while True:
            line, counted = line + text.count("\n", counted, at), at
            value, end = DECODER.raw_decode(text, at)
            yield line, value
            at = _skip(text, end)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
    if text[at : at + 1] != "]":
        raise JSONDecodeError("Expecting ',' or ']'", text, at)
    if _skip(text, at + 1) < len(text):
        raise JSONDecodeError("Extra data", text, _skip(text, at + 1))


def _add_document(table: Table, path: Path, text: str) -> None:
    document = json.loads(text)
    if not isinstance(document, dict):
        return table.complain(f"{path}:1", "the document is neither a list of rows nor an object")
    lists = {key: value for key, value in document.items() if isinstance(value, list)}
    of_rows = [key for key, value in lists.items() if value and all(isinstance(row, dict) for row in value)]
    if len(of_rows) == 1:
        start = text.index("[", text.index(json.dumps(of_rows[0], ensure_ascii=False)))
        before = text.count("\n", 0, start)
        for number, value in enumerate(lists[of_rows[0]]):
            add_object(table, value, f"{path}:{before + 1} ({of_rows[0]}[{number}])")
    elif lists and len(lists) == len(document) and len({len(value) for value in lists.values()}) == 1:
        for number, values in enumerate(zip(*lists.values(), strict=True)):
            add_object(table, dict(zip(lists, values, strict=True)), f"{path}:1 (row {number + 1})")
    else:
        found = ", ".join(document) or "nothing"
        table.complain(f"{path}:1", f"no single list of rows in the object; it has {found}")
    return None


def _skip(text: str, at: int) -> int:
    match = BLANK.match(text, at)
    return match.end() if match else at
