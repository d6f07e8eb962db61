"""Comma- and tab-separated values with a header line."""

import csv
from collections.abc import Iterator
from pathlib import Path

from graft.data.formats.table import Table, decode_lines
from graft.data.rows import Row

# The csv module refuses cells above 131,072 characters unless told; documents are longer.
csv.field_size_limit(2**31 - 1)


def read_csv(path: Path, content: bytes) -> Table:
    """Read comma-separated values; semicolons, tabs or bars when the header has those and no comma."""
    header = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    delimiter = next((mark for mark in ",;\t|" if mark in header), ",")
    return _read(path, content, delimiter, quoting=csv.QUOTE_MINIMAL)


def read_tsv(path: Path, content: bytes) -> Table:
    """Read tab-separated values, quoted as spreadsheets write them, or with quotes as plain characters."""
    quoted = _read(path, content, "\t", quoting=csv.QUOTE_MINIMAL)
    if not quoted.complaints:
        return quoted
    plain = _read(path, content, "\t", quoting=csv.QUOTE_NONE)
    if len(plain.complaints) >= len(quoted.complaints):
        return quoted
    plain.notes.append(f"{path}: quotation marks are read as plain characters, since they do not pair up")
    return plain


def _read(path: Path, content: bytes, delimiter: str, quoting: int) -> Table:
    table = Table()
    lines = decode_lines(path, content, table)
    bad = {number for number, line in enumerate(lines, start=1) if line is None}
    if 1 in bad:
        return table
    header: list[str] | None = None
    for start, end, cells, problem in _records(lines, delimiter, quoting):
        where = f"{path}:{start}"
        if bad.intersection(range(start, end + 1)):
            continue
        if problem:
            table.complain(where, problem)
        elif not cells:
            continue
        elif header is None:
            header = [cell.strip() for cell in cells]
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                table.complain(where, f"two columns are called {', '.join(map(repr, twice))}")
                return table
        elif len(cells) != len(header):
            table.complain(where, f"{len(cells)} cells where the header has {len(header)} columns")
        else:
            table.rows.append(Row(dict(zip(header, cells, strict=True)), where))
    return table


def _records(lines: list[str | None], delimiter: str, quoting: int) -> Iterator[tuple[int, int, list[str], str | None]]:
    """Each record as (first line, last line, cells, problem)."""
    last = len(lines) - 1
    text = ((line or "") + ("\n" if number < last else "") for number, line in enumerate(lines))
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    while True:
        start = reader.line_num + 1
        cells, problem = [], None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not delimited text: {error}"
        yield start, reader.line_num, cells, problem
