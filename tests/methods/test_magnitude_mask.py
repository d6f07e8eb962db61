"""Magnitude masks: counts, the mask by sorting the pretrained weights, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput
from graft.methods.magnitude_mask import MagnitudeMask
from methods.sizes import counts


def test_counts() -> None:
    square, wide = round(0.005 * 768 * 768), round(0.005 * 768 * 3072)
    found = counts("roberta-base", MagnitudeMask())
    assert found.trainable == found.changed == 12 * (4 * square + 2 * wide)
    assert found.stored == 8 * found.trainable + 4 * found.head


def test_the_largest_pretrained_weights_move_and_no_other() -> None:
    plain, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    cases.grafted(tuned, "magnitude_mask", density=0.05, sites="v up")
    merge(tuned)
    for before, after in zip(plain.bert.encoder.layer, tuned.bert.encoder.layer, strict=True):
        for old, new in (
            (before.attention.self.value, after.attention.self.value),
            (before.intermediate.dense, after.intermediate.dense),
        ):
            entries = old.weight.abs().flatten().tolist()
            count = round(0.05 * len(entries))
            threshold = sorted(entries, reverse=True)[count - 1]
            moved = (old.weight != new.weight).flatten()
            assert int(moved.sum()) == count
            assert moved.tolist() == [entry >= threshold for entry in entries]


def test_the_mask_is_not_that_of_moved_weights() -> None:
    model = zoo.tiny("bert")
    adapter = attach(model, MagnitudeMask(density=0.05, sites="q"))
    places = {key: part.state_dict()["at"].clone() for key, part in adapter.parts.items() if "head" not in key}
    cases.move(adapter, by=10.0)
    zoo.forward(model, zoo.batch(model))
    assert all(torch.equal(adapter.parts[key].at, at) for key, at in places.items())


def test_impossible_settings() -> None:
    for density in (0.0, -0.1, 1.01):
        with pytest.raises(BadInput, match="MagnitudeMask: density must be above 0 and below 1"):
            MagnitudeMask(density=density)
