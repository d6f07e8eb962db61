"""MeZO: what it estimates, that it learns from losses and from metrics, and that its journal is the whole run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graft
from graft.errors import BadInput
from graft.training import TrainingOptions, fit
from graft.training.journal import replay
from graft.training.mezo import MeZO
from graft.training.resume import checkpoints, copy_of
from graft.training.tuning import Study, prepared, tune

Make = Callable[..., Study]


def options(**more: Any) -> TrainingOptions:
    return TrainingOptions(**{"optimizer": "mezo", "steps": 8, "batch": 8, "checks": 2, "seed": 3, **more})


def train(study: Study, method: Any = None, choice: TrainingOptions | None = None, **more: Any) -> tuple[Any, Any]:
    choice = choice or options()
    adapter = prepared(study.model, method or graft.LoRA(rank=2), "small", study.tokenizer, choice.seed)
    rows = study.task.features(study.train, study.tokenizer, train=True)
    return adapter, fit(study.model, study.tokenizer, study.task, rows, [], adapter, choice, **more)


def groups(*tensors: nn.Parameter, perturbation: float = 1e-3) -> list[dict[str, Any]]:
    return [{"params": list(tensors), "lr": 0.1, "initial_lr": 0.1, "weight_decay": 0.0, "perturbation": perturbation}]


def test_the_mean_estimate_is_the_gradient() -> None:
    x = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    a = torch.tensor([3.0, 1.0, -1.0])
    mezo = MeZO(groups(x), seed=0, whole=True)
    total = torch.zeros(3)
    for number in range(4000):
        mezo.estimate(number, lambda: float((a * x.detach()).sum() + x.detach().square().sum()))
        total += x.grad  # type: ignore[operator]
    assert torch.allclose(total / 4000, a + 2 * x.detach(), atol=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_looking_leaves_the_tensors_as_they_are_to_the_bit(dtype: torch.dtype) -> None:
    x = nn.Parameter(torch.randn(50, 50).to(dtype))
    before = x.detach().clone()
    mezo = MeZO(groups(x), seed=1)
    for number in range(100):
        mezo.estimate(number, lambda: float(x.float().square().mean()))
    assert torch.equal(x, before)


def test_it_is_what_it_was_when_the_loss_fails() -> None:
    x = nn.Parameter(torch.randn(5))
    before = x.detach().clone()
    with pytest.raises(ZeroDivisionError):
        MeZO(groups(x), seed=1).estimate(0, lambda: 1 / 0)
    assert torch.equal(x, before)


@pytest.mark.parametrize("method", [graft.LoRA(rank=2), graft.LoRA(rank=2) + graft.PromptTuning(tokens=2)])
def test_a_run_is_made_again_from_eight_bytes_a_step(study: Make, tmp_path: Path, method: Any) -> None:
    adapter, fitted = train(study("llama", "answers"), method, options(weight_decay=0.1), folder=tmp_path)
    log = tmp_path / "mezo.log"
    assert log.stat().st_size - log.read_bytes().index(b"\n") - 1 == 8 * fitted.steps
    fresh = study("llama", "answers")
    again = prepared(fresh.model, method, "small", fresh.tokenizer, 3)
    assert replay(again, log) == fitted.steps
    expected = copy_of(adapter)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in copy_of(again).items())


def test_a_journal_of_another_start_or_of_another_method_is_refused(study: Make, tmp_path: Path) -> None:
    train(study("llama", "answers"), folder=tmp_path)
    made = study("llama", "answers")
    with pytest.raises(BadInput, match=r"manual_seed\(3\)"):
        replay(prepared(made.model, graft.LoRA(rank=2), "a", made.tokenizer, 4), tmp_path / "mezo.log")
    with pytest.raises(BadInput, match="journal of a MeZO run of this method"):
        replay(prepared(made.model, graft.IA3(), "b", made.tokenizer, 3), tmp_path / "mezo.log")
    with pytest.raises(BadInput, match="not the journal"):
        replay(prepared(made.model, graft.LoRA(), "c", made.tokenizer, 3), tmp_path / "metrics.jsonl")


def test_an_interrupted_run_goes_on_to_the_same_bits(study: Make, tmp_path: Path) -> None:
    whole, _ = train(study("llama", "answers"), folder=tmp_path / "whole")
    train(study("llama", "answers"), folder=tmp_path / "half")
    middle = checkpoints(tmp_path / "half" / "checkpoints")[0]
    resumed, _ = train(study("llama", "answers"), folder=tmp_path / "half", resume_from=middle)
    left, right = copy_of(whole), copy_of(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert (tmp_path / "whole" / "mezo.log").read_bytes() == (tmp_path / "half" / "mezo.log").read_bytes()


def test_it_learns_from_the_loss_without_gradients(study: Make) -> None:
    made = study("bert", "classes", still=True)
    choice = options(steps=150, batch=16, lr=3e-2, schedule="constant")
    adapter, fitted = train(made, graft.BitFit(), choice)
    losses = [line["loss"] for line in fitted.history]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    assert all(p.grad is None for p in adapter.parameters())


def test_it_learns_from_accuracy(study: Make, tmp_path: Path) -> None:
    made = study("bert", "classes", still=True)
    choice = options(steps=60, batch=16, lr=1e-1, perturbation=0.1, schedule="constant", objective="accuracy")
    adapter = prepared(made.model, graft.BitFit(), "small", made.tokenizer, 0)
    fitted = tune(made, adapter, choice, tmp_path).fit
    losses = [line["loss"] for line in fitted.history if "loss" in line]
    assert all(-1 <= loss <= 0 for loss in losses)
    assert sum(losses[-15:]) < sum(losses[:15])


def test_methods_that_read_gradients_get_the_estimate(study: Make, tmp_path: Path) -> None:
    made = study("bert", "classes")
    _, fitted = train(made, graft.ChildTuning(), options(steps=4), folder=tmp_path)
    assert fitted.steps == 4 and not (tmp_path / "mezo.log").exists()


@pytest.mark.parametrize(("more", "said"), [
    ({"optimizer": "adamw", "objective": "accuracy"}, "for the optimizer mezo"),
    ({"optimizer": "adamw", "perturbation": 1.0}, "for the optimizer mezo"),
    ({"perturbation": 0.0}, "perturbation must be above 0"),
    ({"optimizer": "sgd"}, "no optimizer 'sgd'"),
])  # fmt: skip
def test_what_has_no_meaning_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        options(**more)
