"""Parallel: the weighted sum of what adapters add, whatever they are, merged too."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import graft
import zoo
from graft.attach import attach, require, use
from graft.errors import BadInput, Refused


def grafted(name: str, *methods: Any) -> Any:
    model = zoo.tiny(name)
    for at, method in enumerate(methods):
        cases.move(attach(model, method, "abc"[at]), seed=at)
    return model


def test_of_low_rank_updates_it_is_their_weighted_sum_also_merged() -> None:
    model = grafted("llama", graft.LoRA(rank=2), graft.LoRA(rank=3, alpha=5.0))
    adapters = require(model).adapters
    sites = {placed.site.name: placed.site for placed in adapters["a"].placed if placed.site is not None}
    want = {name: site.weight + 0.7 * (adapters["a"].parts[name].params(site)["weight"] - site.weight)
            - 2.0 * (adapters["b"].parts[name].params(site)["weight"] - site.weight)
            for name, site in sites.items()}  # fmt: skip
    made = attach(model, graft.Parallel(("a", "b"), weights=(0.7, -2.0)), "both")
    assert made.counts.rank == 5
    attached = zoo.forward(model, batch := zoo.batch(model))
    for name in "ab":
        graft.detach(model, name)
    graft.merge(model, "both")
    for name, site in sites.items():
        assert torch.allclose(site.weight, want[name], atol=1e-6)
    assert torch.allclose(zoo.forward(model, batch), attached, atol=1e-5)


def test_a_weight_of_one_alone_is_that_adapter_and_none_are_the_mean() -> None:
    model = grafted("bert", graft.Pfeiffer(bottleneck=4), graft.Pfeiffer(bottleneck=3))
    batch = zoo.batch(model)
    with use(model, "a"):
        want = zoo.forward(model, batch)
    attach(model, graft.Parallel(("a", "b"), weights=(1, 0)), "one")
    assert torch.allclose(zoo.forward(model, batch), want, atol=1e-6)
    assert attach(model, graft.Parallel(("a", "b")), "mean").method.weights == (0.5, 0.5)
    with pytest.raises(Refused, match="Serve it attached"):
        graft.merge(model, "mean")


def test_it_is_stored_with_all_of_them_and_trains_on(tmp_path: Path) -> None:
    model = grafted("t5", graft.LoRA(rank=2), graft.LoRA(rank=3))
    made = attach(model, graft.Parallel(("a", "b"), weights=(2.0, 1.0)), "both")
    assert made.counts.trainable == sum(require(model).adapters[name].counts.trainable for name in "ab")
    graft.save(model, "both", tmp_path / "both")
    fresh = zoo.tiny("t5")
    graft.load(fresh, tmp_path / "both", name="again")
    assert torch.equal(zoo.forward(fresh, zoo.batch(fresh)), zoo.forward(model, zoo.batch(model)))


@pytest.mark.parametrize(("value", "said"), [
    (lambda: graft.Parallel(), "needs at least two adapters"),
    (lambda: graft.Parallel(("a", "c")), "no adapter c on this model"),
    (lambda: graft.Parallel(("a", "b"), weights=(1.0, 2.0, 3.0)), "weights must be 2 numbers"),
])  # fmt: skip
def test_what_cannot_be(value: Any, said: str) -> None:
    model = grafted("llama", graft.LoRA(rank=2), graft.LoRA(rank=2))
    with pytest.raises(BadInput, match=said):
        attach(model, value(), "made")
