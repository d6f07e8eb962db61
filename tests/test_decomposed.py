"""Weight-decomposed updates: the formula on merged weights, for every method that has the form; counts."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.decomposed import Decomposed


@pytest.mark.parametrize("name", ["loha", "lokr", "vera"])
def test_magnitude_and_direction_apart(name: str) -> None:
    plain, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    inner = cases.grafted(plain, name, rank=2, sites="q down").parts
    adapter = cases.grafted(tuned, name, rank=2, sites="q down", decomposed=True)
    for key, part in adapter.parts.items():
        moved = part.inner if isinstance(part, Decomposed) else part
        moved.load_state_dict(inner[key].state_dict())
    merge(plain)
    for placed in adapter.placed:
        if isinstance(placed.part, Decomposed):
            weight = plain.get_submodule(placed.site.path).weight
            weight.data = weight.data * (placed.part.m / weight.data.norm(dim=1))[:, None]
    batch = zoo.batch(plain)
    expected = zoo.forward(plain.base_model, batch)
    torch.testing.assert_close(zoo.forward(tuned.base_model, batch), expected, atol=2e-5, rtol=2e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned.base_model, batch), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ["loha", "lokr", "vera"])
def test_a_magnitude_for_each_output_row(name: str) -> None:
    plain, with_magnitudes = (
        attach(zoo.tiny("bert"), cases.method(name, rank=2, sites="q", decomposed=each)) for each in (False, True)
    )
    assert with_magnitudes.counts.trainable == plain.counts.trainable + 2 * 32
