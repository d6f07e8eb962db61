"""Random masks: counts, the equation by hand, what an optimizer moves and keeps, what is stored, the seed."""

from pathlib import Path

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.checkpoint import load, save
from graft.errors import BadInput
from graft.methods.random_mask import RandomMask
from methods.sizes import counts


def test_counts() -> None:
    square, wide = round(0.005 * 768 * 768), round(0.005 * 768 * 3072)
    found = counts("roberta-base", RandomMask())
    assert found.trainable == found.changed == 12 * (4 * square + 2 * wide)
    assert found.stored == 8 * found.trainable + 4 * found.head  # four bytes a place, four a value
    assert found.rank == 768
    # The published 0.623M are 0.005 of every tensor; the matrices and the embedding are nearly all of them.
    assert counts("roberta-base", RandomMask(sites="embed all-linear")).trainable == pytest.approx(0.623e6, rel=0.01)
    assert counts("gpt2", RandomMask(density=1e-9)).trainable == 6 * 12  # at least one of each matrix


def test_equation() -> None:
    plain, tuned = zoo.tiny("gpt2"), zoo.tiny("gpt2")
    adapter = cases.grafted(tuned, "random_mask", density=0.1, sites="k down")
    for index, block in enumerate(plain.transformer.h):
        key, down = adapter.parts[f"decoder.{index}.k"], adapter.parts[f"decoder.{index}.down"]
        width = plain.config.n_embd
        for part, stored in (
            (key, block.attn.c_attn.weight.data[:, width : 2 * width]),
            (down, block.mlp.c_proj.weight.data),
        ):
            for place, value in zip(part.at.tolist(), part.values.tolist(), strict=True):
                row, column = divmod(place, stored.shape[0])  # stored as (in, out)
                stored[column, row] += value
    batch = zoo.batch(plain)
    want = zoo.forward(plain, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)


def test_an_optimizer_moves_and_remembers_the_selected_entries_alone() -> None:
    model, base = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = attach(model, RandomMask(density=0.1, sites="q"))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        zoo.forward(model, zoo.batch(model)).square().mean().backward()
        optimizer.step()
    sizes = {id(p): p.numel() for p in adapter.parameters()}
    assert all(state["exp_avg"].numel() == sizes[id(p)] for p, state in optimizer.state.items())
    assert sum(sizes.values()) == adapter.counts.trainable
    merge(model)
    for index, layer in enumerate(model.bert.encoder.layer):
        before = base.bert.encoder.layer[index].attention.self.query.weight
        moved = (layer.attention.self.query.weight != before).flatten().nonzero().flatten()
        assert torch.equal(moved.int(), adapter.parts[f"encoder.{index}.q"].at)


def test_places_are_those_of_the_seed_and_stored(tmp_path: Path) -> None:
    first, again, other = (attach(zoo.tiny("bert"), RandomMask(density=0.1, seed=seed)).parts for seed in (1, 1, 2))
    assert all(torch.equal(part.at, again[key].at) for key, part in first.items() if "head" not in key)
    assert not torch.equal(first["encoder.0.q"].at, other["encoder.0.q"].at)
    assert not torch.equal(first["encoder.0.q"].at, first["encoder.0.k"].at)  # each matrix has its own
    model = zoo.tiny("bert")
    made = cases.grafted(model, "random_mask")
    made.parts["encoder.0.q"].select(torch.tensor([5, 3]))  # other places, and fewer, than the seed would give
    made.parts["encoder.0.q"].values.data += 1
    save(model, "default", tmp_path / "kept")
    found = load(zoo.tiny("bert"), tmp_path / "kept").parts["encoder.0.q"]
    assert found.at.tolist() == [3, 5] and found.values.tolist() == [1, 1]


def test_impossible_settings() -> None:
    for settings in ({"density": 0.0}, {"density": 1.5}, {"seed": -1}):
        with pytest.raises(BadInput, match=f"RandomMask: {next(iter(settings))} must"):
            RandomMask(**settings)
