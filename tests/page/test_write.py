"""What `write` leaves in the folder: one file that needs nothing, a report, and tables that hold the same numbers."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from graft import page
from graft.errors import BadInput
from graft.page import view
from page import made


class Tags(HTMLParser):
    """The tags of a page, with the text of its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.within: list[str] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") == "data" and tag == "script"

    def handle_data(self, data: str) -> None:
        if getattr(self, "inside", False):
            self.data += data
            self.inside = False


def test_the_page_asks_for_nothing_and_holds_no_markup_of_others(run: Path) -> None:
    text = (run / "page.html").read_text(encoding="utf-8")
    tags = Tags(text).tags
    assert [tag for tag, _ in tags if tag in ("img", "iframe", "object", "embed", "b")] == []
    assert [attributes.get("id") for tag, attributes in tags if tag == "script"] == ["data", None]
    addresses = [value or "" for _, attributes in tags for key, value in attributes.items() if key in ("src", "href")]
    assert {address[:1] for address in addresses} == {"#", "d"} and "data:," in addresses
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "@import" not in text and "url(" not in text


def test_the_data_of_the_page_are_the_standings(run: Path) -> None:
    standings = json.loads((run / "standings.json").read_text())
    data = json.loads(Tags((run / "page.html").read_text()).data)
    assert [name for name, *_ in data["contestants"]] == [each["name"] for each in standings["contestants"]]
    for drawn, board in zip(data["boards"], standings["boards"], strict=True):
        found = {data["contestants"][at][0]: value for at, value, *_ in drawn["points"]}
        assert found == {
            line["contestant"]: line["score"]["value"] for line in board["lines"] if line["status"] == "done"
        }
    rows = pq.read_table(run / "items.parquet").to_pylist()
    assert len(data["items"]["rows"]) == len(rows)
    for packed, row in zip(data["items"]["rows"], rows, strict=True):
        assert data["items"]["texts"][packed[3]] == row["input"]


def test_pairs_read_the_way_they_were_compared(run: Path) -> None:
    standings = json.loads((run / "standings.json").read_text())
    for board in standings["boards"]:
        scores = {line["contestant"]: line["score"]["value"] for line in board["lines"] if line["score"]}
        for pair, row in zip(board["pairs"], view.pairs(board), strict=True):
            told = pair["comparison"]["verdict"]
            assert row["verdict"].text and told.startswith(row["verdict"].text)
            if told.startswith(("better", "worse")):
                assert (scores[row["a"]] > scores[row["b"]]) == told.startswith("better")


def test_tables_have_a_row_for_every_board_and_contestant(run: Path) -> None:
    standings = json.loads((run / "standings.json").read_text())
    lines = [(board, line) for board in standings["boards"] for line in board["lines"]]
    with (run / "results.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    table = pq.read_table(run / "results.parquet")
    for (board, line), row, typed in zip(lines, written, table.to_pylist(), strict=True):
        assert (row["board"], row["contestant"], row["status"]) == (board["id"], line["contestant"], line["status"])
        score = (line["score"] or {}).get("value")
        assert typed["score"] == score and row["score"] == ("" if score is None else str(score))
        assert typed["cost_trainable"] == line["costs"].get("trainable")
        lost = (line["costs"].get("forgetting") or {}).get("change")
        assert typed["cost_forgetting"] == (lost and lost["value"])
        assert typed["error"] == line["error"] and typed["cost_energy_kwh"] is None
        verdict = (line["against_best"] or {}).get("verdict")
        assert typed["against_best_verdict"] == verdict
    assert str(table.schema.field("cost_energy_kwh").type) == "double"


def test_the_report_says_the_same_and_shows_text_as_text(run: Path) -> None:
    standings = json.loads((run / "standings.json").read_text())
    report = (run / "report.md").read_text(encoding="utf-8")
    assert standings["answer"]["sentence"] in report and standings["answer"]["doubled"] in report
    assert standings["command"] in report
    for board in standings["boards"]:
        for line in board["lines"]:
            assert (line["against_best"] or {}).get("verdict", "") in report
    assert "&lt;b&gt;here&lt;/b&gt;" in report and "<b>" not in report
    tables = re.findall(r"(?:^\|.*\n)+", report, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_a_page_of_too_many_items_keeps_disagreements_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.tournament(tmp_path, boards=2, items=60, long=3000)
    monkeypatch.setattr("graft.page.writing.LIMIT", 500_000)
    written = page.write(tmp_path)
    assert 0 < written.items < written.total == 120 and str(written.items) in written.rule
    assert written.page.stat().st_size < 500_000
    text = written.page.read_text()
    assert written.rule in text
    data = json.loads(Tags(text).data)["items"]

    def differs(scores: list[Any]) -> bool:
        return len({score for score in scores if score is not None}) > 1

    for board in (0, 1):
        kept = [differs(scores) for at, *_, scores in data["rows"] if at == board]
        rows = pq.read_table(tmp_path / "items.parquet").to_pylist()
        rows = [row for row in rows if row["board"] == ("minilm-trec-1000", "minilm-trec-100")[board]]
        there = sum(differs([row[key] for key in row if key.endswith(".score")]) for row in rows)
        assert sum(kept) == min(there, len(kept)), "an agreed item took the place of one with disagreement"
    again = page.write(tmp_path)
    assert again.page.read_text() == text


def test_the_same_standings_make_the_same_page(run: Path) -> None:
    before = (run / "page.html").read_bytes()
    page.write(run)
    assert (run / "page.html").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(schema=2), "schema 2"),
        (lambda found: found.pop("boards"), "boards is missing"),
        (lambda found: found["boards"][1]["lines"][0].pop("status"), r"boards\[1\].lines\[0\].status is missing"),
        (lambda found: found["boards"][0]["lines"][2].update(status="odd"), "'odd', none of done, failed, refused"),
        (lambda found: found["metric"].update(title=3), "metric.title is int"),
        (lambda found: found.update(sweeps=[], ablations=[]) or found["boards"][0].update(id="other"), "does not know"),
    ],
)
def test_standings_that_cannot_be_shown_say_where(tmp_path: Path, change: Any, message: str) -> None:
    found = made.tournament(tmp_path, items=5)
    change(found)
    (tmp_path / "standings.json").write_text(json.dumps(found))
    with pytest.raises(BadInput, match=message):
        page.write(tmp_path)
    assert not (tmp_path / "page.html").exists()


def test_what_is_no_json_or_no_parquet_is_told(tmp_path: Path) -> None:
    made.tournament(tmp_path, items=5)
    (tmp_path / "items.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadInput, match=r"items\.parquet cannot be read"):
        page.write(tmp_path)
    for text in ('{"schema": 1', "[" * 100_000):
        (tmp_path / "standings.json").write_text(text)
        with pytest.raises(BadInput, match="is no JSON"):
            page.write(tmp_path)


def test_numbers_that_json_does_not_have_are_missing_numbers(tmp_path: Path) -> None:
    found = made.tournament(tmp_path, items=5)
    found["boards"][0]["lines"][0]["costs"]["flops"] = float("nan")
    found["boards"][0]["lines"][1]["score"] |= {"value": float("nan"), "reason": "a label is missing from test"}
    (tmp_path / "standings.json").write_text(json.dumps(found))
    text = page.write(tmp_path).page.read_text()
    assert "a label is missing from test" in text and "NaN" not in Tags(text).data
