"""`graft methods`: the table, one method in full, the counts of a model, and the same facts as JSON."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import graft
import zoo
from graft import catalogue
from graft.cli import main
from graft.verbs.methods import Options, Result, run


def shown(result: Result, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    result.show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def table() -> Result:
    return run(Options())


def test_every_method_stands_in_the_table_of_its_family(table: Result) -> None:
    assert [line.name for line in table.lines] == list(catalogue.methods())
    text = shown(table)
    assert all(f"\n{name} " in text for name in catalogue.methods())
    parts = text.split("Add to the input")
    assert "prompt_tuning" in parts[1] and "lora " in parts[0]
    assert len(table.as_json()["methods"]) == len(catalogue.methods())


def test_a_family_that_graft_does_not_know_comes_last(table: Result) -> None:
    odd = Result("", [replace(table.lines[0], name="mine", family="own"), *table.lines])
    text = shown(odd)
    assert text.index("\nmine ") > text.index("\nmam ") and "\nown" in text


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of a few methods."""
    names = ("ia3", "lora", "prefix_tuning", "top_layers")
    monkeypatch.setattr(catalogue, "methods", lambda: {name: catalogue.own()[name] for name in names})


def test_counts_on_a_model(few: None, tmp_path: Path) -> None:
    zoo.config("bloom").save_pretrained(tmp_path)
    result = run(Options(model=str(tmp_path)))
    lines = {line.name: line.costs for line in result.lines}
    counts = graft.attach(zoo.tiny("bloom"), graft.LoRA()).counts
    assert lines["lora"] is not None and lines["lora"].trainable == counts.trainable
    assert lines["prefix_tuning"] is not None and "attention interface" in lines["prefix_tuning"].refused
    text = shown(result)
    assert f"{counts.trainable:,} ({counts.trainable / counts.total:.2%})" in text and "not there" in text


def test_one_method_in_full(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "lora", "--rank", "16", "--model", "sprout", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["costs"]["trainable"] == 114_688 and found["costs"]["rank"] == 16
    assert found["trains"] == "4·L·d·rank" and list(found["refused"]) == ["top_layers"]
    assert [(mark["first"], mark["kind"]) for mark in found["marks"]] == [(2, "params"), (4, "params")]


def test_the_terminal_says_what_the_json_says(few: None) -> None:
    result = run(Options(graft.PrefixTuning(), "sprout"))
    text, facts = shown(result, 400), result.as_json()
    for value in (facts["source"], facts["trains"], f"{facts['costs']['stored']:,} bytes", 
                  *facts["structure"].values(), *(each["said"] for each in facts["advice"]),
                  *(each["source"] for each in facts["advice"]), *facts["formulas"]):  # fmt: skip
        assert value in text, value
    assert "▲━━━━━━━━▲━━━━━━━━▲" in text and "no: Prefix is no change of parameters" in text
    assert max(map(len, shown(result, 80).splitlines())) < 125  # formulas are laid out by hand and keep their lines


@pytest.mark.parametrize("model", ["", "sprout"])
def test_what_cannot_be_made_says_why_and_nothing_else_of_it(
    few: None, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["methods", "lora", "--rank", "5000", "--model", model]) == (2 if model else 0)
    text = capsys.readouterr().out
    assert "no drawing: LoRA: rank 5000 at decoder.0.q" in text and ("not there" in text) == bool(model)
    assert "  merges" not in text and "in a sum with" not in text


def test_a_model_that_cannot_take_it(few: None, tmp_path: Path) -> None:
    zoo.config("bloom").save_pretrained(tmp_path)
    result = run(Options(graft.PrefixTuning(), str(tmp_path)))
    assert result.costs is not None and "attention interface" in result.costs.refused
    assert "not there" in shown(result) and result.exit_code == 2
