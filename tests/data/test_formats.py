"""Every format gives the same rows, knows the line of each, and names what it cannot read."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from graft.data.formats import read_file
from graft.errors import BadInput

ROWS = [
    {"text": "a, b", "label": "x"}, {"text": 'say "hi"\nagain', "label": "y"}, {"text": "näïve 🙂\u2028", "label": "z"}
]  # fmt: skip


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


CONTENTS = {
    "jsonl": as_lines(ROWS),
    "json": json.dumps(ROWS, indent=2).encode(),
    "csv": as_csv(ROWS),
    "tsv": as_csv(ROWS, "\t"),
    "parquet": as_parquet(ROWS),
}


def read(folder: Path, name: str, content: bytes) -> Any:
    path = folder / name
    path.write_bytes(content)
    return read_file(path)


@pytest.mark.parametrize("named", [True, False], ids=["by extension", "by content"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_all_formats_give_the_same_rows(kind: str, named: bool, tmp_path: Path) -> None:
    table = read(tmp_path, f"rows.{kind}" if named else "rows", CONTENTS[kind])
    assert [dict(row) for row in table.rows] == ROWS
    assert not table.complaints


def test_every_row_knows_its_line(tmp_path: Path) -> None:
    def lines(kind: str, content: bytes) -> list[int]:
        return [int(row.where.rsplit(":", 1)[1]) for row in read(tmp_path, f"rows.{kind}", content).rows]

    assert lines("jsonl", b'{"a": 1}\n\n{"a": 2}\r\n{"a": 3}') == [1, 3, 4]
    assert lines("json", b'[\n{"a": 1},\n\n {"a":\n 2}, {"a": 3}\n]') == [2, 4, 5]
    assert lines("csv", b'a,b\n1,"x\ny"\n2,z\n') == [2, 4]
    assert lines("parquet", CONTENTS["parquet"]) == [1, 2, 3]


@given(st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.text()}), min_size=1, max_size=5))
def test_json_array_agrees_with_the_standard_library(tmp_path_factory: Any, rows: list[dict[str, str]]) -> None:
    rows = [{key: value.encode("utf-8", "replace").decode() for key, value in row.items()} for row in rows]
    for indent in (None, 1):
        content = json.dumps(rows, ensure_ascii=False, indent=indent).encode()
        table = read(tmp_path_factory.getbasetemp(), "array.json", content)
        assert [dict(row) for row in table.rows] == json.loads(content)
        starts = [math.inf if indent is None else 2 + number * 4 for number in range(len(rows))]
        if indent:
            assert [float(row.where.rsplit(":", 1)[1]) for row in table.rows] == starts


@pytest.mark.parametrize(
    ("name", "content", "line", "what"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', 2, "not UTF-8: byte 0xe9 at position 11"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', 2, "not JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', 2, "must be an object"),
        ("a.jsonl", b"\xff\xfe{\x00", 1, "UTF-16"),
        ("a.jsonl", b'{"a": 1}\n' + b"[" * 100_000 + b"\n", 2, "not JSON"),
        ("a.json", b'[{"a": 1},\n {"a": }]', 2, "not JSON"),
        ("a.json", b'[{"a": 1}\n', 2, "not JSON"),
        ("a.json", b'[{"a": 1}]\n x', 2, "not JSON"),
        ("a.json", b'[{"a": 1},\n 7]', 2, "must be an object"),
        ("a.json", b'{"a": 1, "b": "x"}', 1, "no single list of rows"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", 3, "3 cells where the header has 2 columns"),
        ("a.csv", b"a,b\n1\n", 2, "1 cells where the header has 2 columns"),
        ("a.csv", b'a,b\n1,2\n"1,2\n3,4\n', 3, "not delimited text"),
        ("a.csv", b"a,b\n1,2\n1,\xe9\n", 3, "not UTF-8"),
        ("a.csv", b"a,a\n1,2\n", 1, "two columns are called 'a'"),
        ("a.parquet", b"PAR1 and nothing", 1, "not Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: bytes, line: int, what: str, tmp_path: Path) -> None:
    table = read(tmp_path, name, content)
    assert len(table.complaints) == 1
    assert table.complaints[0].where == f"{tmp_path / name}:{line}"
    assert what in table.complaints[0].what


def test_good_rows_around_a_bad_one_are_kept(tmp_path: Path) -> None:
    assert len(read(tmp_path, "a.csv", b'a,b\n1,2\n\xe9,"x\ny"\n3,4\n').rows) == 2
    assert len(read(tmp_path, "a.jsonl", b'{"a": 1}\nx\n{"a": 2}\n').rows) == 2


def test_json_in_other_shapes(tmp_path: Path) -> None:
    lines = read(tmp_path, "a.json", b'{"a": 1}\n{"a": 2}\n')
    held = read(tmp_path, "b.json", b'{"version": "1", "data": [{"a": 1}, {"a": 2}]}')
    columns = read(tmp_path, "c.json", b'{"a": [1, 2]}')
    for table in (lines, held, columns):
        assert [dict(row) for row in table.rows] == [{"a": 1}, {"a": 2}]
    broken = read(tmp_path, "d.json", b'{"a": 1}\n{"a": \n')
    assert broken.complaints[0].where.endswith("d.json:2")


def test_other_delimiters_and_plain_quotes(tmp_path: Path) -> None:
    assert dict(read(tmp_path, "a.csv", b"a;b\n1;2\n").rows[0]) == {"a": "1", "b": "2"}
    assert dict(read(tmp_path, "bom.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n").rows[0]) == {"a": "1", "b": "2"}
    table = read(tmp_path, "a.tsv", b'a\tb\n"one\t1\n5" screen\t2\n')
    assert [dict(row) for row in table.rows] == [{"a": '"one', "b": "1"}, {"a": '5" screen', "b": "2"}]
    assert "plain characters" in table.notes[0]


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pdf").write_bytes(b"%PDF-1.4\n")
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(BadInput, match=r"neither the extension nor the content"):
        read_file(tmp_path / "pdf")
    with pytest.raises(BadInput, match="Unpack it first"):
        read_file(tmp_path / "packed")
    with pytest.raises(BadInput, match="cannot read"):
        read_file(tmp_path / "missing.csv")


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("NaN", "column label: nan is no finite number"), ("1e999", "column label: inf is no finite number"),
        ('"x\\ud800"', r"column label: \ud800 is half of a character"),
        ('[{"a": -Infinity}]', "column label: -inf is no finite number"),
    ],
)  # fmt: skip
def test_cells_that_nothing_can_use_are_complaints(kind: str, cell: str, said: str, tmp_path: Path) -> None:
    lines = ['{"text": "a", "label": 1}', f'{{"text": "b", "label": {cell}}}', '{"text": "\\ud83d\\ude42", "label": 2}']
    content = "\n".join(lines) if kind == "jsonl" else "[\n" + ",\n".join(lines) + "\n]"
    table = read(tmp_path, f"rows.{kind}", content.encode())
    assert [row["text"] for row in table.rows] == ["a", "🙂"]
    (complaint,) = table.complaints
    assert complaint.what == said and complaint.where.endswith(f":{2 if kind == 'jsonl' else 3}")
