"""MeZO: what it estimates, that it learns from losses and from metrics, and that its journal is the whole run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import cases
import graft
from graft.errors import BadInput
from graft.training import TrainingOptions, fit, optimization
from graft.training.journal import replay
from graft.training.mezo import MeZO
from graft.training.resume import checkpoints, copy_of
from graft.training.trainer import GraftTrainer
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_too_small_for_half_precision_add_up(dtype: torch.dtype) -> None:
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(40, 40, generator=draws)
    coarse, fine = nn.Parameter(start.to(dtype)), nn.Parameter(start.to(dtype).float())
    both = [MeZO(groups(x), seed=1) for x in (coarse, fine)]
    for number in range(300):
        for mezo in both:
            mezo.move(number % 3, 2e-6, 1.0)  # along three directions, each step below what rounding leaves
    moved = (fine - start.to(dtype)).detach()
    assert float(moved.abs().mean()) > 0.01
    torch.testing.assert_close(coarse.detach(), fine.detach().to(dtype), atol=1e-4, rtol=torch.finfo(dtype).eps)


def test_steps_are_those_of_the_paper_by_hand(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two forwards of a base in evaluation mode, parts that draw the same dropout in both, the penalty, the decay."""
    method = graft.LoRA(rank=2, dropout=0.5, sites="q") + graft.HRA(rank=2, penalty=3.0, sites="v")
    seen: list[Any] = []
    mean_loss = GraftTrainer.mean_loss
    monkeypatch.setattr(
        GraftTrainer, "mean_loss", lambda self, batch, model: seen.append(batch) or mean_loss(self, batch, model)
    )
    choice = options(steps=2, batch=64, weight_decay=50.0, schedule="constant", warmup=0.0)
    adapter, fitted = train(study("bert", "classes"), method, choice)

    made = study("bert", "classes")
    by_hand = prepared(made.model, method, "small", made.tokenizer, 3)
    start = copy_of(by_hand)

    def lowered(step: int) -> float:
        made.model.eval()
        for part in by_hand.parts.values():
            part.train()
        torch.manual_seed(3 + step)
        loss = made.model(**seen[2 * step]).loss
        chains = [part.directions() for part in by_hand.parts.values() if hasattr(part, "directions")]
        return float(loss + 3.0 * sum((U.T @ U).fill_diagonal_(0).square().sum() for U in chains))

    mezo = MeZO(optimization.groups(by_hand, choice), seed=3)  # for its directions alone
    with torch.no_grad():
        for step in range(2):
            trained, _, z = zip(*mezo._directions(step), strict=True)
            losses = []
            for sign in (1, -2, 1):
                for p, each in zip(trained, z, strict=True):
                    p += sign * 1e-2 * each
                losses.append(lowered(step))
            assert fitted.history[step]["loss"] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-5)
            for p, each in zip(trained, z, strict=True):
                decay = 50.0 if p.dim() > 1 else 0.0
                p -= 1e-4 * ((losses[0] - losses[1]) / 2e-2 * each + decay * p)
    found, wanted = copy_of(adapter), copy_of(by_hand)
    for name, was in start.items():
        torch.testing.assert_close(found[name] - was, wanted[name] - was, rtol=2e-2, atol=3e-7)


REPLAYED = [
    graft.LoRA(rank=2) + graft.PromptTuning(tokens=2), graft.TopLayers(k=1), graft.FishMask(density=0.05),
    graft.DiffPruning(density=0.1), graft.LoRA(rank=2), graft.HRA(rank=2, penalty=0.1),
    graft.SecondOrderMask(density=0.05), graft.SparseAdapter(4, score="snip"), graft.ChildPruning(density=0.1),
    graft.LotterySparse(density=0.1),
]  # fmt: skip


@pytest.mark.parametrize("method", cases.some(REPLAYED, 4), ids=lambda method: method.slug())
def test_a_run_is_made_again_from_eight_bytes_a_step(study: Make, tmp_path: Path, method: Any) -> None:
    adapter, fitted = train(study("llama", "answers"), method, options(weight_decay=0.1, lr=1e-3), folder=tmp_path)
    log = tmp_path / "mezo.log"
    assert log.stat().st_size - log.read_bytes().index(b"\n") - 1 == 8 * fitted.steps
    fresh = study("llama", "answers")
    again = prepared(fresh.model, method, "small", fresh.tokenizer, 3)
    for p in again.parameters():
        p.grad = torch.ones_like(p)  # of whoever looked at it before
    assert replay(again, log) == fitted.steps
    expected, found = copy_of(adapter), copy_of(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_a_run_of_some_seconds_is_made_again_with_its_phases(study: Make, tmp_path: Path) -> None:
    method = graft.ChildPruning(density=0.1)
    choice = options(steps=None, seconds=0.5, lr=1e-3)
    adapter, fitted = train(study("llama", "answers"), method, choice, folder=tmp_path)
    fresh = study("llama", "answers")
    again = prepared(fresh.model, method, "small", fresh.tokenizer, 3)
    assert replay(again, tmp_path / "mezo.log") == fitted.steps
    expected = copy_of(adapter)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in copy_of(again).items())


def test_a_journal_of_another_start_or_of_another_method_is_refused(study: Make, tmp_path: Path) -> None:
    made = study("llama", "answers")
    train(study("llama", "answers"), folder=tmp_path / "lora")
    log = tmp_path / "lora" / "mezo.log"
    with pytest.raises(BadInput, match=r"manual_seed\(3\)"):
        replay(prepared(made.model, graft.LoRA(rank=2), "a", made.tokenizer, 4), log)
    for name, other in (("b", graft.IA3()), ("c", graft.LoRA(rank=2, alpha=4.0))):
        with pytest.raises(BadInput, match=r"was of lora\(rank=2\), and this adapter is of"):
            replay(prepared(made.model, other, name, made.tokenizer, 3), log)
    with pytest.raises(BadInput, match="not the journal"):
        replay(prepared(made.model, graft.LoRA(), "d", made.tokenizer, 3), tmp_path / "lora" / "metrics.jsonl")

    mask = graft.FishMask(density=0.05)
    train(study("llama", "answers"), mask, folder=tmp_path / "mask")
    kept = tmp_path / "mask" / "mezo.safetensors"
    fresh = prepared(made.model, mask, "e", made.tokenizer, 3)
    before, whole = copy_of(fresh), load_file(kept)
    places = next(name for name in whole if name.endswith(".at"))
    save_file({**whole, places: whole[places].flip(0)}, kept)
    with pytest.raises(BadInput, match="began with other tensors"):
        replay(fresh, kept.with_name("mezo.log"))
    kept.unlink()
    with pytest.raises(BadInput, match=r"mezo\.safetensors.*It belongs beside the journal"):
        replay(fresh, kept.with_name("mezo.log"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in copy_of(fresh).items())


@pytest.mark.parametrize(
    ("method", "dtype"), cases.some([(graft.TopLayers(k=1), torch.bfloat16), (graft.LoRA(rank=2), torch.float32)])
)
def test_an_interrupted_run_goes_on_to_the_same_bits(study: Make, tmp_path: Path, method: Any, dtype: Any) -> None:
    def run(name: str, **more: Any) -> dict[str, torch.Tensor]:
        made = study("llama", "answers")
        made.model.to(dtype)
        return copy_of(train(made, method, folder=tmp_path / name, **more)[0])

    whole = run("whole")
    run("half")
    middle = checkpoints(tmp_path / "half" / "checkpoints")[0]
    resumed = run("half", resume_from=middle)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    fresh = study("llama", "answers")
    fresh.model.to(dtype)
    again = prepared(fresh.model, method, "small", fresh.tokenizer, 3)
    replay(again, tmp_path / "whole" / "mezo.log")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in copy_of(again).items())
    assert (tmp_path / "whole" / "mezo.log").read_bytes() == (tmp_path / "half" / "mezo.log").read_bytes()
    (tmp_path / "half" / "mezo.log").unlink()
    with pytest.raises(BadInput, match=r"mezo\.log: the journal.*Put it back"):
        run("half", resume_from=middle)


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


@pytest.mark.parametrize(
    "method",
    cases.some([graft.AdaLoRA(2, 2), graft.ChildTuning("F"), graft.LoRAFA(rank=2, precondition=True),
                graft.AdapterDrop("adalora(init_rank=2, target_rank=2)", drop=1)], 2),
    ids=lambda method: method.slug(),
)  # fmt: skip
def test_methods_that_read_gradients_get_the_estimate_and_the_run_says_so(
    study: Make, tmp_path: Path, method: Any
) -> None:
    def tuned(clip: float, folder: Path) -> tuple[Any, Any]:
        made = study("bert", "classes")
        adapter = prepared(made.model, method, "small", made.tokenizer, 3)
        done = tune(made, adapter, options(steps=4, clip=clip, lr=1e-2), folder)
        return copy_of(adapter), done

    (free, done), (clipped, _) = tuned(1e9, tmp_path / "free"), tuned(1e-3, tmp_path / "clipped")
    assert all(torch.equal(tensor, clipped[name]) for name, tensor in free.items())
    assert not (tmp_path / "free" / "mezo.log").exists()
    assert any(f"no mezo.log was written: {method.slug()} reads gradients" in note for note in done.notes)


WHOLE, INPUT, OTHER = (1e-3, 1e-6), (1e-1, 1e-2), (1e-2, 1e-4)


@pytest.mark.parametrize(("method", "expected"), [
    (graft.TopLayers(k=1), WHOLE), (graft.Mixout(), WHOLE), (graft.LotterySparse(), WHOLE),
    (graft.ChildPruning(), WHOLE), (graft.DiffPruning(), WHOLE), (graft.ChildTuning("F"), WHOLE),
    (graft.Parallel(hosts=("child_tuning(variant='F')",) * 2), WHOLE),
    (graft.PrefixTuning(tokens=2), INPUT), (graft.LoRA(rank=2), OTHER), (graft.RandomMask(), OTHER),
])  # fmt: skip
def test_perturbation_and_rate_are_those_of_what_trains(study: Make, method: Any, expected: Any) -> None:
    made = study("llama", "answers")
    adapter = prepared(made.model, method, "small", made.tokenizer, 0)
    found = optimization.groups(adapter, options())
    assert (found[0]["perturbation"], found[0]["lr"]) == pytest.approx(expected)


@pytest.mark.parametrize("rate", [None, 1e-3])
def test_terms_of_a_sum_keep_the_ratio_of_their_rates(study: Make, rate: float | None) -> None:
    made = study("llama", "answers")
    adapter = prepared(made.model, graft.LoRA(rank=2) + graft.PrefixTuning(tokens=2), "small", made.tokenizer, 0)
    slow, fast = sorted({group["lr"] for group in optimization.groups(adapter, options(lr=rate))})
    assert slow == pytest.approx(rate or OTHER[1]) and fast / slow == pytest.approx(INPUT[1] / OTHER[1])


@pytest.mark.parametrize(("more", "said"), [
    ({"optimizer": "adamw", "objective": "accuracy"}, "for the optimizer mezo"),
    ({"optimizer": "adamw", "perturbation": 1.0}, "for the optimizer mezo"),
    ({"perturbation": 0.0}, "perturbation must be above 0"),
    ({"perturbation": 1e99}, "perturbation must be at most 1,000"),
    ({"optimizer": "sgd"}, "no optimizer 'sgd'"),
])  # fmt: skip
def test_what_has_no_meaning_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        options(**more)
