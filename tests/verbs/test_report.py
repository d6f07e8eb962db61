"""`graft report` on a comparison, from Python and from the command line."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import graft
from graft.cli import main
from graft.errors import BadInput
from page import made


def test_it_writes_the_page_and_says_where(tmp_path: Path) -> None:
    found = made.tournament(tmp_path, items=5)
    result = graft.report(run=str(tmp_path))
    told = json.loads(json.dumps(result.as_json()))
    assert told["answer"] == found["answer"]["sentence"] and (told["items"], told["items_in_all"]) == (10, 10)
    assert {path.name for path in tmp_path.iterdir()} == {
        "standings.json", "items.parquet", "page.html", "report.md", "results.csv", "results.parquet",
    }  # fmt: skip
    shown = io.StringIO()
    result.show(Console(file=shown, width=80))
    for path in (told["page"], told["report"], *told["results"]):
        assert path in shown.getvalue().replace("\n", "")


def test_the_command_gives_json_and_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.tournament(tmp_path / "run", items=5)
    assert main(["report", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(tmp_path / "run" / "page.html")
    assert main(["report", str(tmp_path)]) == 2
    assert "there is no standings.json" in capsys.readouterr().err
    with pytest.raises(BadInput, match="graft compare"):
        graft.report(run=tmp_path / "nowhere")
