"""ChildPruning: counts, projections by sorting, going back to the base, the mask that stays, what is stored."""

from pathlib import Path

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.checkpoint import load, save
from graft.errors import BadInput
from graft.methods.child_pruning import ChildPruning
from graft.sparse import Sparse
from methods.moments import moment
from methods.sizes import counts


def test_counts() -> None:
    matrices, square, wide = 12 * (4 * 768 * 768 + 2 * 768 * 3072), round(0.005 * 768 * 768), round(0.005 * 768 * 3072)
    found = counts("roberta-base", ChildPruning())
    assert found.trainable == matrices and found.changed == 12 * (4 * square + 2 * wide)
    assert found.stored == 8 * found.changed + 4 * found.head
    assert counts("roberta-base", ChildPruning(sparse=True)).trainable == found.changed


def test_pruning_goes_back_to_the_base_and_the_mask_stays() -> None:
    model, base = zoo.tiny("bert"), zoo.tiny("bert")
    method = ChildPruning(density=0.1, every=2, burn_in=5, sites="q", search=1.0)
    adapter = attach(model, method, head=False)
    parts = list(adapter.parts.values())
    part = parts[0]
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.1)
    seen = []
    for step in range(8):
        model.train()
        optimizer.zero_grad()
        zoo.forward(model, zoo.batch(model)).square().mean().backward()
        optimizer.step()
        whole = (part.delta * part.mask).detach().clone()
        method.during("forward", moment(step + 1), parts)
        now = (part.delta * part.mask).detach()
        if step + 1 in (2, 4, 5):  # every second step, and the last of the burn-in
            threshold = whole.abs().flatten().sort(descending=True).values[part.entries - 1]
            assert torch.equal(now, torch.where(whole.abs() >= threshold, whole, 0))
        else:
            assert torch.equal(now, whole)
        seen.append(int((now != 0).sum()))
    assert [count == part.entries for count in seen] == [False, True, False, True, True, True, True, True]
    merge(model)
    before = base.bert.encoder.layer[0].attention.self.query.weight
    moved = model.bert.encoder.layer[0].attention.self.query.weight != before
    assert torch.equal(moved, part.mask) and int(moved.sum()) == part.entries


def test_what_is_evaluated_and_stored_is_sparse_in_the_middle_of_training_too(tmp_path: Path) -> None:
    model = zoo.tiny("bert")
    adapter = cases.grafted(model, "child_pruning", density=0.1)
    key = "encoder.0.q"
    part = adapter.parts[key].eval()
    assert int((part.largest() != 0).sum()) == part.entries < part.delta.numel()
    model.eval()
    expected = zoo.forward(model, zoo.batch(model))
    save(model, "default", tmp_path / "kept")
    other = zoo.tiny("bert")
    found = load(other, tmp_path / "kept")
    assert isinstance(found.parts[key], Sparse) and found.parts[key].values.shape == (part.entries,)
    torch.testing.assert_close(zoo.forward(other, zoo.batch(other)), expected, atol=1e-6, rtol=1e-5)


def test_impossible_settings() -> None:
    for settings in ({"density": 0.0}, {"every": 0}, {"burn_in": 0}, {"search": 0.0}, {"search": 1.5}):
        with pytest.raises(BadInput, match=f"ChildPruning: {next(iter(settings))} must"):
            ChildPruning(**settings)
