"""Rows of two tasks that answer the same prompts differently: told apart in training, scoring and generation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import small
from graft import checkpoint, cli
from graft.attach import Adapter, attach, use
from graft.data.rows import Row
from graft.methods.hyperformer import HyperFormer
from graft.scoring import score
from graft.training import TrainingOptions, fit
from graft.training.tuning import Study

TASKS = {"one": "kind : animal", "two": "kind : plant"}
Told = tuple[Study, Adapter, Path]


def of(rows: list[Row], name: str) -> list[Row]:
    """The rows as those of a task, which answers all prompts alike."""
    return [row.having(completion=TASKS[name], references=[TASKS[name]], task=name) for row in rows]


@pytest.fixture(scope="module")
def told(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A model with an adapter trained on batches of both tasks, and its folder."""
    study = small.study_of(home, "llama", "answers")
    torch.manual_seed(0)
    adapter = attach(study.model, HyperFormer(tuple(TASKS), bottleneck=8, width=8, hidden=16))
    rows = [row for name in TASKS for row in of(list(study.train), name)]
    features = study.task.features(rows, study.tokenizer, train=True)
    fit(study.model, study.tokenizer, study.task, features, [], adapter,
        TrainingOptions(steps=80, lr=1e-1))  # fmt: skip
    folder = tmp_path_factory.mktemp("told") / "adapter"
    checkpoint.save(study.model, "default", folder, extra={"task": study.task.as_dict()})
    return study, adapter, folder


def test_training_and_scoring_tell_them_apart(told: Told) -> None:
    study, adapter, _ = told
    rows = [row for pair in zip(*(of(list(study.test[:4]), name) for name in TASKS), strict=True) for row in pair]
    with use(study.model, adapter.name):
        records = score(study.model, study.tokenizer, study.task, rows)
    assert [record["output"] for record in records] == 4 * list(TASKS.values())
    crossed = [row.having(task="two" if row["task"] == "one" else "one") for row in rows]
    with use(study.model, adapter.name):
        wrong = score(study.model, study.tokenizer, study.task, crossed)
    assert all(other["loss"] > record["loss"] + 1 for record, other in zip(records, wrong, strict=True))


def test_a_prompt_is_answered_as_its_task(
    home: Path, told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": "cat in the hill", "task": name}) + "\n" for name in TASKS))
    given = ["generate", str(home / "llama"), "--adapter", str(told[2]), "--json"]
    assert cli.main([*given, "--prompts", str(prompts)]) == 0
    answers = [answer["adapter"].strip() for answer in json.loads(capsys.readouterr().out)["answers"]]
    assert answers == list(TASKS.values())
    assert cli.main([*given, "--task", "two", "--prompt", "cat in the hill"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["adapter"].strip() == TASKS["two"]
    for wrong, said in (([], "add --task one"), (["--task", "tow"], "did you mean 'two'?")):
        assert cli.main([*given, *wrong, "--prompt", "cat"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["tune", "evaluate"])
def test_rows_without_a_task_are_refused(
    home: Path, told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    how = (
        ["--method", "hyperformer", "--folder", str(tmp_path / "run")]
        if verb == "tune"
        else ["--adapter", str(told[2])]
    )
    assert cli.main([verb, str(home / "llama"), str(home / "answers"), *how]) == 2
    assert "--columns task=COLUMN" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_step_is_the_sum_of_its_tasks_whatever_goes_through_at_once(
    told: Told, study: Callable[..., Study], home: Path
) -> None:
    """Parts of a batch that fit the memory keep the tasks of their rows."""
    found = []
    for accumulate in (1, 4):
        made = study("llama", "answers")
        torch.manual_seed(0)
        adapter = attach(made.model, HyperFormer(tuple(TASKS), bottleneck=8, width=8, hidden=16))
        rows = [row for name in TASKS for row in of(list(made.train[:4]), name)]
        features = made.task.features(rows, made.tokenizer, train=True)
        fit(made.model, made.tokenizer, made.task, features, [], adapter,
            TrainingOptions(steps=2, batch=8, accumulate=accumulate))  # fmt: skip
        found.append(torch.cat([p.detach().flatten() for p in adapter.parameters()]))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)
