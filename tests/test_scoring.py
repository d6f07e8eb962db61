"""Scoring: records, outcomes against independent numbers, the floor, general text, items on disk."""

import io
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score

import graft
import small
from graft import metrics
from graft.errors import BadInput, Refused
from graft.scoring import forgetting, general_text, majority, measurable, not_for, outcome, score, write_items
from graft.scoring.table import show_scores
from graft.statistics import Interval
from graft.statistics.bootstrap import nowhere
from graft.training.tuning import Study


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scoring")
    for kind in ("bert", "llama", "t5"):
        small.base(folder, kind)
    small.classes(folder)
    small.answers(folder)
    return folder


@pytest.mark.parametrize(("kind", "rows"), [("bert", "classes"), ("llama", "answers"), ("t5", "answers")])
def test_records_do_not_depend_on_the_batch(home: Path, kind: str, rows: str) -> None:
    study = small.study_of(home, kind, rows)
    one, many = (score(study.model, study.tokenizer, study.task, study.test, batch=batch) for batch in (1, 7))
    assert [record["item"] for record in many] == list(range(24))
    for left, right, row in zip(one, many, study.test, strict=True):
        assert left["output"] == right["output"] and left["reference"] == study.task.reference(row)
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-3)


def test_losses_are_the_models_own(home: Path) -> None:
    study = small.study_of(home, "llama", "answers")
    row = study.test[3]
    feature = study.task.features([row], study.tokenizer)[0]
    ids, labels = (torch.tensor([feature[name]]) for name in ("input_ids", "labels"))
    with torch.no_grad():
        expected = study.model(input_ids=ids, labels=labels).loss.item()
    record = score(study.model, study.tokenizer, study.task, [row])[0]
    assert record["loss"] / record["tokens"] == pytest.approx(expected, rel=1e-4)


def test_small_memory_gives_the_same_records(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small.study_of(home)
    whole = score(study.model, study.tokenizer, study.task, study.test)
    predict = type(study.task).predict

    def small_memory(self: Any, model: Any, batch: Any, tokenizer: Any) -> Any:
        if len(batch["input_ids"]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(self, model, batch, tokenizer)

    monkeypatch.setattr(type(study.task), "predict", small_memory)
    divided = score(study.model, study.tokenizer, study.task, study.test)
    assert [record["output"] for record in divided] == [record["output"] for record in whole]

    def no_memory(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(type(study.task), "predict", no_memory)
    with pytest.raises(Refused, match="single row"):
        score(study.model, study.tokenizer, study.task, study.test)


def records(outputs: str, references: str) -> list[dict[str, Any]]:
    """One record a letter."""
    return [{"item": n, "output": o, "reference": r} for n, (o, r) in enumerate(zip(outputs, references, strict=True))]


def test_an_outcome_is_right_about_numbers_and_flips() -> None:
    truth, base, tuned = "aabbccabca" * 6, "aaaaaaaaaa" * 6, "aabbccabcb" * 6
    found = outcome(("accuracy", "f1"), records(base, truth), records(tuned, truth))
    for name, system, outputs in (("accuracy", "base", base), ("accuracy", "other", tuned)):
        assert getattr(found.comparisons[name], system).value == pytest.approx(
            100 * accuracy_score(list(truth), list(outputs))
        )
    f1 = 100 * f1_score(list(truth), list(tuned), average="macro")
    assert found.comparisons["f1"].other.value == pytest.approx(f1)
    flips = found.headline.flips
    assert flips is not None
    gained = [n for n in range(60) if base[n] != truth[n] == tuned[n]]
    lost = [n for n in range(60) if base[n] == truth[n] != tuned[n]]
    assert (flips.improved, flips.worsened) == (gained, lost)
    assert found.helped and found.verdict.startswith("adapter against base, accuracy: better by 50.0")
    told = found.as_json()["metrics"]["accuracy"]
    assert told["flips"] == {"improved": len(gained), "worsened": len(lost), "unchanged": 60 - len(gained) - len(lost)}


def test_the_metric_asked_for_decides() -> None:
    base, tuned = records("aaab" * 10, "abab" * 10), records("abab" * 10, "abab" * 10)
    found = outcome(("accuracy", "f1"), base, tuned, metric="matthews")
    assert list(found.comparisons) == ["matthews", "accuracy", "f1"] and found.headline.metric == "matthews"
    assert not outcome(("accuracy",), base, base).helped
    with pytest.raises(BadInput, match="Did you mean accuracy"):
        outcome(("acuracy",), base, tuned)
    with pytest.raises(BadInput, match="no metric"):
        outcome((), base, tuned)


def test_the_majority_is_that_of_the_training_rows(home: Path) -> None:
    study = small.study_of(home)
    before = score(study.model, study.tokenizer, study.task, study.test)
    found = majority(study.task, study.train, before)
    assert found is not None
    labels = [row["label"] for row in study.train]
    assert found[0] == max(set(labels), key=labels.count)
    share = np.mean([row["label"] == found[0] for row in study.test])
    assert metrics.get("accuracy").score(found[1]).value == pytest.approx(100 * share)
    generation = small.study_of(home, "llama", "answers")
    assert majority(generation.task, generation.train, before) is None


def test_forgetting_compares_base_and_adapter_on_the_same_text(home: Path, tmp_path: Path) -> None:
    study = small.study_of(home, "llama", "answers")
    text = tmp_path / "general.txt"
    text.write_text("the cat sees the dog .\n" * 300 + "the oak is near the river .\n" * 300)
    adapter = graft.attach(study.model, graft.LoRA(rank=2), "new")
    same = forgetting(study.model, study.tokenizer, "new", general_text(text))
    assert same.headline.outcome == "same" and same.headline.items > 3
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    changed = forgetting(study.model, study.tokenizer, "new", general_text(text))
    assert changed.headline.base == same.headline.base
    assert changed.headline.difference.value != 0
    text.write_text("")
    with pytest.raises(BadInput, match="is empty"):
        general_text(text)
    with pytest.raises(BadInput, match="cannot read the general text"):
        general_text(tmp_path / "nothing.txt")


def test_forgetting_is_for_models_that_predict_the_next_token(home: Path, tmp_path: Path) -> None:
    for kind, rows, measured in (("bert", "classes", False), ("t5", "answers", False), ("llama", "answers", True)):
        study = small.study_of(home, kind, rows)
        assert (not_for(study.model, study.tokenizer) is None) == measured
    study, notes, own = small.study_of(home), [], general_text()
    with pytest.raises(Refused, match="BertForSequenceClassification does not"):
        forgetting(study.model, study.tokenizer, "new", own)
    assert measurable(own, study.model, study.tokenizer, notes) is None and "does not" in notes[0]
    (tmp_path / "general.txt").write_text("some text")
    with pytest.raises(Refused, match="does not"):
        measurable(general_text(tmp_path / "general.txt"), study.model, study.tokenizer, [])


def test_every_python_has_a_general_text() -> None:
    text = general_text()
    version = ".".join(platform.python_version_tuple()[:2])
    assert text.name == f"the language reference of Python {version}" and len(text.rows) == 24
    words = " ".join(row["text"] for row in text.rows).lower().split()
    assert len({row["text"] for row in text.rows}) == 24 and words.count("the") > len(words) / 50


def test_items_stand_side_by_side(home: Path, tmp_path: Path) -> None:
    study: Study = small.study_of(home, "llama", "answers")
    found = score(study.model, study.tokenizer, study.task, study.test[:3])
    write_items(tmp_path / "items.parquet", {"base": found, "other": found}, ["a:1"], ["rougeL", "exact_match"])
    table = pq.read_table(tmp_path / "items.parquet").to_pydict()
    assert table["where"] == ["a:1", "", ""] and table["item"] == [0, 1, 2]
    assert table["reference"] == [f'["{row["completion"]}"]' for row in study.test[:3]]
    assert table["base_rougeL"] == table["other_rougeL"] == metrics.get("rougeL").score(found).items.tolist()  # type: ignore[union-attr]


def test_no_rows_is_an_error(home: Path) -> None:
    study = small.study_of(home)
    with pytest.raises(BadInput, match="no rows to score"):
        score(study.model, study.tokenizer, study.task, [])


def test_why_there_is_no_interval_stands_below_the_table() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    why = "the metric is undefined in 48% of resamples: too few items of some kind"
    show_scores(console, {"accuracy": Interval(50.0, 0.0, 100.0, 9.0), "f1": nowhere(33.3, why)})
    table, below = console.export_text().split("33.3")
    assert "50.0" in table and "0.0 to 100.0" in table and why not in table
    assert below.splitlines()[1].strip() == f"F1 (macro): {why}"
