"""Lottery-ticket sparse fine-tuning: counts, the ticket by sorting, the second start, sums, what is stored."""

from pathlib import Path

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.checkpoint import load, save
from graft.errors import BadInput
from graft.methods.lottery_sparse import LotterySparse
from graft.sparse import Sparse
from methods.moments import moment
from methods.sizes import counts


def test_counts() -> None:
    matrices, square, wide = 12 * (4 * 768 * 768 + 2 * 768 * 3072), round(0.005 * 768 * 768), round(0.005 * 768 * 3072)
    found = counts("roberta-base", LotterySparse())
    assert found.trainable == matrices and found.changed == 12 * (4 * square + 2 * wide)
    assert found.stored == 8 * found.changed + 4 * found.head
    assert counts("roberta-base", LotterySparse(sparse=True)).trainable == found.changed


def test_what_moved_most_starts_again_and_trains_alone() -> None:
    model, base = zoo.tiny("bert"), zoo.tiny("bert")
    method = LotterySparse(density=0.1, full=3, sites="q")
    adapter = attach(model, method, head=False)
    parts = list(adapter.parts.values())
    part = parts[0]
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.1)
    start = zoo.forward(base, zoo.batch(base))
    for step in range(6):
        model.train()
        moved = part.delta.detach().abs().flatten()
        method.during("forward", moment(step), parts)
        if step == 3:
            ticket = moved >= moved.sort(descending=True).values[part.entries - 1]
            assert torch.equal(part.mask.flatten(), ticket) and int(ticket.sum()) == part.entries
            torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), start)
        optimizer.zero_grad()
        zoo.forward(model, zoo.batch(model)).square().mean().backward()
        optimizer.step()
        method.during("stepped", moment(step), parts)
        if step < 3:
            assert part.mask.all() and part.delta.all()
    merge(model)
    before = base.bert.encoder.layer[0].attention.self.query.weight
    changed = model.bert.encoder.layer[0].attention.self.query.weight != before
    assert torch.equal(changed.flatten(), ticket)


def test_two_of_them_add_up() -> None:
    model, base = zoo.tiny("bert"), zoo.tiny("bert")
    both = LotterySparse(density=0.1, sites="q") + LotterySparse(density=0.2, sites="q")
    adapter = attach(model, both, head=False)
    cases.move(adapter)
    first, second = adapter.parts["0.encoder.0.q"].eval(), adapter.parts["1.encoder.0.q"].eval()
    expected = base.bert.encoder.layer[0].attention.self.query.weight + first.largest() + second.largest()
    merge(model)
    torch.testing.assert_close(model.bert.encoder.layer[0].attention.self.query.weight, expected.detach())


def test_places_and_values_are_stored(tmp_path: Path) -> None:
    model = zoo.tiny("bert")
    adapter = cases.grafted(model, "lottery_sparse", density=0.1)
    model.eval()
    expected = zoo.forward(model, zoo.batch(model))
    save(model, "default", tmp_path / "kept")
    other = zoo.tiny("bert")
    part = load(other, tmp_path / "kept").parts["encoder.0.q"]
    assert isinstance(part, Sparse) and part.values.shape == (adapter.parts["encoder.0.q"].entries,)
    torch.testing.assert_close(zoo.forward(other, zoo.batch(other)), expected, atol=1e-6, rtol=1e-5)


def test_impossible_settings() -> None:
    for settings in ({"density": 0.0}, {"full": 0}, {"search": 0.0}, {"search": 1.5}):
        with pytest.raises(BadInput, match=f"LotterySparse: {next(iter(settings))} must"):
            LotterySparse(**settings)
