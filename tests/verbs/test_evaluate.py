"""`graft evaluate`: scores, the adapter against its base, and the gate."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import graft
import small
from graft import cli, data
from graft.errors import BadInput
from graft.scoring.evaluation import seen_by

Runs = Callable[[str], Any]


def printed(result: Any) -> str:
    """What the terminal shows."""
    shown = io.StringIO()
    result.show(Console(width=160, file=shown))
    return shown.getvalue()


def test_it_finds_what_tune_found(runs: Runs, home: Path, tmp_path: Path) -> None:
    tuned = runs("classes").tuned
    result = graft.evaluate(
        model=str(home / "bert"), data=str(home / "classes"), adapter=str(tuned.folder), gate=True,
        items=tmp_path / "items.parquet",
    )  # fmt: skip
    assert result.exit_code == 0
    for name, comparison in tuned.outcome.comparisons.items():
        found = result.found.outcome.comparisons[name]
        assert found.other.value == pytest.approx(comparison.other.value, abs=1e-3)
        assert found.base.value == pytest.approx(comparison.base.value, abs=1e-3)
        assert found.p == comparison.p
    assert re.search(r"adapter against base, accuracy: better by", printed(result))
    items = pq.read_table(tmp_path / "items.parquet")
    assert items.num_rows == 24 and {"base_output", "adapter_output", "adapter_accuracy"} <= set(items.column_names)


def test_a_base_alone_gets_scores_with_intervals(home: Path) -> None:
    result = graft.evaluate(model=str(home / "llama"), data=str(home / "answers"), length=32, rows=10)
    scores = result.found.scores
    assert result.found.outcome is None and len(result.found.rows) == 10
    assert scores["perplexity"].low < scores["perplexity"].value < scores["perplexity"].high
    text = printed(result)
    assert "ROUGE-L" in text and "perplexity ↓" in text and "95 % interval" in text
    assert json.loads(json.dumps(result.as_json()))["scores"]["loss"]["value"] == pytest.approx(scores["loss"].value)


def test_the_gate_fails_an_adapter_that_does_not_help(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from graft import checkpoint

    study = small.study_of(home, "llama", "answers")
    adapter = graft.attach(study.model, graft.LoRA(rank=2), "noise")
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.02)
    checkpoint.save(study.model, "noise", tmp_path / "noise", extra={"task": study.task.as_dict()})
    arguments = [
        "evaluate",
        str(home / "llama"),
        str(home / "answers"),
        "--adapter",
        str(tmp_path / "noise"),
        "--metric",
        "loss",
    ]
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "--gate"]) == 1
    assert "gate failed: it is not shown that the adapter helps" in capsys.readouterr().out


def test_rows_that_it_was_tuned_on_are_not_scored(home: Path, tmp_path: Path) -> None:
    rows = [row for split in ("train", "test") for row in small.lines(home / f"classes/{split}.jsonl")]
    one = tmp_path / "rows.jsonl"
    one.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tuned = graft.tune(
        model=str(home / "bert"), data=str(one), folder=tmp_path / "run", steps=4, lr=1e-2, splits=(0.6, 0.2, 0.2)
    ).tuned
    items = pq.read_table(tmp_path / "run" / "items.parquet").to_pylist()
    result = graft.evaluate(model=str(home / "bert"), data=str(one), adapter=str(tuned.folder))
    assert [row["text"] for row in result.found.rows] == [item["input"] for item in items]
    assert len(items) < len(rows) and any("held out then" in note for note in result.found.notes)
    # Other rows without splits are all scored.
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    assert len(graft.evaluate(model=str(home / "bert"), data=str(other), adapter=str(tuned.folder)).found.rows) == 20


def test_rows_of_what_a_part_was_made_of_count_too(home: Path, tmp_path: Path) -> None:
    one = tmp_path / "rows.jsonl"
    one.write_text((home / "classes/train.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    splits = (0.6, 0.2, 0.2)
    of = [{"sha256": data.load(str(one), splits=splits, seed=seed).hash, "splits": splits, "seed": seed}
          for seed in (1, 2)]  # fmt: skip
    flat, nested = seen_by(of, str(one), {}), seen_by([{**of[0], "others": of[1:]}], str(one), {})
    assert nested == flat > seen_by(of[:1], str(one), {})


def test_another_base_is_refused(runs: Runs, home: Path, tmp_path: Path) -> None:
    other = small.base(tmp_path, "bert", hidden_act="relu")
    folder = str(runs("classes").tuned.folder)
    with pytest.raises(BadInput, match="hidden_act"):
        graft.evaluate(model=str(other), data=str(home / "classes"), adapter=folder)
    assert graft.evaluate(model=str(other), data=str(home / "classes"), adapter=folder, force=True).found.outcome


def test_splits_and_options_that_do_not_fit_are_refused(home: Path) -> None:
    with pytest.raises(BadInput, match="give an --adapter"):
        graft.evaluate(model=str(home / "bert"), data=str(home / "classes"), gate=True)
    with pytest.raises(BadInput, match="has no validation rows"):
        graft.evaluate(
            model=str(home / "bert"), data=f"test={home}/classes/test.jsonl",
            split="validation",
        )  # fmt: skip
    assert len(graft.evaluate(model=str(home / "bert"), data=str(home / "classes"), split="train").found.rows) == 64


def test_forgetting_on_general_text(runs: Runs, home: Path, tmp_path: Path) -> None:
    text = tmp_path / "general.jsonl"
    text.write_text("".join(json.dumps({"text": f"the {a} sees the bird ."}) + "\n" for a in ("cat", "dog", "cow")))
    found = graft.evaluate(
        model=str(home / "llama"), data=str(home / "answers"), adapter=str(runs("answers").tuned.folder), rows=5,
        general_text=str(text),
    ).found  # fmt: skip
    assert found.forgot.comparisons["loss"].items == 3
    assert found.forgot.headline.metric == "loss"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": -1}, "rows must be at least 0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"items": Path("items.csv")}, "ends in .parquet"),
        ({"items": Path(__file__) / "items.parquet"}, "cannot write"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        graft.evaluate(model="no-such-model", data="no-such-rows", **wrong)
