"""Diff pruning: counts, the gate by its distribution, the penalty, what is kept, the fixed mask, what is stored."""

import math
from pathlib import Path

import pytest
import torch

import cases
import zoo
from graft.attach import attach
from graft.checkpoint import load, save
from graft.errors import BadInput
from graft.methods.diff_pruning import DiffPruning, Gates
from graft.sparse import Sparse
from graft.training.optimization import groups
from graft.training.options import TrainingOptions
from methods.moments import moment
from methods.sizes import counts


def test_counts() -> None:
    matrices, square, wide = 12 * (4 * 768 * 768 + 2 * 768 * 3072), round(0.005 * 768 * 768), round(0.005 * 768 * 3072)
    found, plain = counts("roberta-base", DiffPruning()), counts("roberta-base", DiffPruning(structured=False))
    assert found.trainable == 2 * matrices + 72 and plain.trainable == 2 * matrices
    assert found.changed == 12 * (4 * square + 2 * wide)
    assert found.stored == 8 * found.changed + 4 * found.head
    assert counts("roberta-base", DiffPruning(sparse=True)).trainable == found.changed


def gates(structured: bool = True, **settings: object) -> Gates:
    adapter = attach(zoo.tiny("bert"), DiffPruning(structured=structured, sites="q @ 0", **settings), head=False)
    return adapter.parts["encoder.0.q"]


def test_the_gate_is_hard_concrete() -> None:
    part = gates()
    for alpha in (-1.0, 0.0, 2.0, 5.0):
        drawn = part.gate(torch.full((200_000,), alpha), noisy=True)
        assert float(drawn.min()) >= 0 and float(drawn.max()) <= 1
        assert abs(float((drawn != 0).float().mean()) - 1 / (1 + math.exp(-alpha))) < 5e-3  # σ(α − log 1)
        assert abs(float((drawn == 1).float().mean()) - 1 / (1 + math.exp(math.log(5) - alpha))) < 5e-3
    assert float(torch.sigmoid(torch.tensor(5.0))) == pytest.approx(0.9933, abs=1e-4)
    assert [float(part.gate(torch.tensor(alpha), noisy=False)) for alpha in (5.0, -5.0)] == [1, 0]


@pytest.mark.parametrize("structured", [False, True])
def test_the_penalty_is_the_expected_number_of_entries(structured: bool) -> None:
    method = DiffPruning(structured=structured, penalty=0.5)
    part = gates(structured)
    logits = [p for name, p in part.named_parameters() if name != "delta"]
    assert len(logits) == 1 + structured and all(bool((p == 5).all()) for p in logits)  # almost all count at first
    with torch.no_grad():
        part.alpha.copy_(torch.randn(part.alpha.shape))
        part.delta.fill_(1.0)
        if structured:
            part.group.fill_(0.5)
    penalty = method.during("loss", moment(0), [part])
    number = sum(int((part.difference() != 0).sum()) for _ in range(2000)) / 2000
    assert penalty.item() == pytest.approx(0.5 * number, rel=0.05)
    penalty.backward()
    assert part.alpha.grad.all() and part.delta.grad is None
    assert method.during("loss", moment(20, of=40), [part]) is None


def test_outside_training_the_largest_differences_count_and_then_they_alone_train() -> None:
    model = zoo.tiny("bert")
    adapter = cases.grafted(model, "diff_pruning", density=0.1, sites="q", burn_in=3)
    part, method = adapter.parts["encoder.0.q"], adapter.method
    with torch.no_grad():
        part.alpha.copy_(2 * torch.randn(part.alpha.shape))
    z = (part.alpha.sigmoid() * 3 - 1.5).clamp(0, 1) * (part.group.sigmoid() * 3 - 1.5).clamp(0, 1)
    whole = (z * part.delta * method.search).detach()
    threshold = whole.abs().flatten().sort(descending=True).values[part.entries - 1]
    expected = torch.where(whole.abs() >= threshold, whole, 0)
    model.eval()
    torch.testing.assert_close(part.largest(), expected)
    before = zoo.forward(model, zoo.batch(model))
    for phase in ("forward", "gradients", "stepped"):
        method.during(phase, moment(2), list(adapter.parts.values()))
    assert (part.alpha != 1e4).any()
    method.during("forward", moment(3), list(adapter.parts.values()))
    torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), before)
    model.train()
    optimizer = torch.optim.AdamW(method.groups(list(adapter.parts.values())), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        zoo.forward(model, zoo.batch(model)).square().mean().backward()
        optimizer.step()
    moved = part.difference()
    assert torch.equal(moved != 0, expected != 0) and not torch.allclose(moved, expected)


def test_logits_have_their_own_rate() -> None:
    adapter = attach(zoo.tiny("bert"), DiffPruning(sites="q"), head=False)
    parts = list(adapter.parts.values())
    rest, logits = adapter.method.groups(parts)
    assert {id(p) for p in rest["params"]} == {id(part.delta) for part in parts}
    assert len(logits["params"]) == 2 * len(parts) and (logits["lr"], logits["weight_decay"]) == (0.1, 0.0)
    for rate in (None, 5e-5):
        of_a_run = groups(adapter, TrainingOptions(lr=rate))
        assert [group["lr"] for group in of_a_run] == pytest.approx([rate or 1e-2, 0.1, 0.1])


def test_places_and_values_are_stored(tmp_path: Path) -> None:
    model = zoo.tiny("bert")
    cases.grafted(model, "diff_pruning")
    expected = zoo.forward(model, zoo.batch(model))
    save(model, "default", tmp_path / "kept")
    other = zoo.tiny("bert")
    found = load(other, tmp_path / "kept")
    assert found.method.sparse and all(isinstance(p, Sparse) for k, p in found.parts.items() if "head" not in k)
    torch.testing.assert_close(zoo.forward(other, zoo.batch(other)), expected, atol=1e-6, rtol=1e-5)


def test_impossible_settings() -> None:
    for settings in ({"density": 0.0}, {"penalty": -1.0}, {"burn_in": 0}, {"search": 0.0}, {"search": 1.5}):
        with pytest.raises(BadInput, match=f"DiffPruning: {next(iter(settings))} must"):
            DiffPruning(**settings)
