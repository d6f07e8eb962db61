"""Adapters made into one: what they compute together, on disk too, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import graft
import zoo
from graft.attach import Adapter, attach, require, use
from graft.errors import BadInput, Refused
from graft.method import Sum


def grafted(name: str, *methods: Any) -> Any:
    """A model with adapters a, b, … whose tensors have moved."""
    model = zoo.tiny(name, "classification" if name == "bert" else "lm")
    for at, method in enumerate(methods):
        cases.move(attach(model, method, "abc"[at]), seed=at)
    return model


def outputs(model: Any, name: str) -> torch.Tensor:
    with use(model, name), torch.no_grad():
        return zoo.forward(model, zoo.batch(model))


def adapter(model: Any, name: str) -> Adapter:
    found = require(model)
    return found.adapters[name]


def test_a_stack_is_the_sum_of_the_methods_with_their_tensors(tmp_path: Path) -> None:
    methods = (graft.LoRA(rank=2), graft.Pfeiffer(bottleneck=4) + graft.IA3(), graft.PrefixTuning(tokens=2))
    model = grafted("llama", *methods)
    made = attach(model, graft.Stack(("a", "b", "c")), "all")
    assert [type(term).__name__ for term in made.method.methods()] == ["LoRA", "Pfeiffer", "IA3", "PrefixTuning"]
    other = zoo.tiny("llama")
    theirs = attach(other, graft.LoRA(rank=2) + graft.Pfeiffer(bottleneck=4) + graft.IA3() + methods[2])
    with torch.no_grad():
        for key, part in theirs.parts.items():
            term, place = key.split(".", 1)
            source, name = {"0": ("a", place), "1": ("b", f"0.{place}"), "2": ("b", f"1.{place}"), "3": ("c", place)}[
                term
            ]
            part.load_state_dict(adapter(model, source).parts[name].state_dict())
    assert torch.equal(outputs(model, "all"), outputs(other, "default"))
    graft.save(model, "all", tmp_path / "all")
    fresh = zoo.tiny("llama")
    graft.load(fresh, tmp_path / "all", name="again")
    assert torch.equal(outputs(fresh, "again"), outputs(model, "all"))


def test_a_stack_of_updates_adds_them_up_and_outlives_its_adapters() -> None:
    model = grafted("llama", graft.LoRA(rank=2), graft.LoRA(rank=3, alpha=5.0))
    site = next(placed.site for placed in adapter(model, "a").placed if placed.site is not None)
    weight = site.weight.clone()
    changed = [adapter(model, name).parts[site.name].params(site)["weight"] - weight for name in "ab"]
    attach(model, graft.Stack(("a", "b")), "both")
    graft.detach(model, "a")
    graft.detach(model, "b")
    graft.merge(model, "both")
    assert torch.allclose(site.weight, weight + sum(changed), atol=1e-6)


def test_the_head_of_a_stack_is_the_last_ones() -> None:
    model = grafted("bert", graft.LoRA(rank=2), graft.BitFit())
    made = attach(model, graft.Stack(("a", "b")), "both")
    heads = {p.key: p.part for p in made.placed if p.head}
    assert heads
    for key, part in heads.items():
        assert all(torch.equal(t, adapter(model, "b").parts[key].state_dict()[n]) for n, t in part.state_dict().items())


def test_an_average_is_of_the_tensors_and_of_the_same_method(tmp_path: Path) -> None:
    model = grafted("bert", graft.Pfeiffer(bottleneck=4), graft.Pfeiffer(bottleneck=4))
    made = attach(model, graft.Average(("a", "b"), weights=(0.25, 0.75)), "mean")
    assert made.method == graft.Pfeiffer(bottleneck=4)
    a, b = (dict(adapter(model, name).named_parameters()) for name in "ab")
    for name, tensor in made.named_parameters():
        assert torch.allclose(tensor, 0.25 * a[name] + 0.75 * b[name])
    attach(model, graft.Average(("a", "b"), weights=(1.0, 0)), "only")
    assert torch.equal(outputs(model, "only"), outputs(model, "a"))


def test_what_is_stored_smaller_is_composed_as_it_is_stored() -> None:
    model = grafted("llama", graft.PrefixTuning(tokens=2, reparameterize=True, hidden=6), graft.LoRA(rank=2))
    made = attach(model, graft.Stack(("a", "b")), "both")
    assert made.method.methods()[0] == graft.PrefixTuning(tokens=2, hidden=6)
    assert made.counts.trainable < adapter(model, "a").counts.trainable


@pytest.mark.parametrize(("value", "said"), [
    (lambda: graft.Stack(("a",)), "needs at least two adapters"),
    (lambda: graft.Stack(("a", "a")), "each named once"),
    (lambda: graft.Stack(("a", "nope")), "no adapter nope on this model; attached are: a, b, c"),
    (lambda: graft.Average(("a", "b")), "put them side by side"),
    (lambda: graft.Average(("a", "c"), weights=(1.0,)), r"weights must be 2 numbers.* weights=\(\)"),
    (lambda: graft.Average(("a", "c"), weights=(1.0, float("nan"))), "weights must be a tuple of numbers"),
    (lambda: graft.Average(("a", "c"), weights=None), r"weights must be a tuple of numbers.* The default is \(\)"),
    (lambda: graft.Average(("a", "c"), weights=(0, 0.0)), "weights must not all be 0"),
    (lambda: graft.Stack("ab"), "adapters must be a tuple of text, got 'ab'"),
    (lambda: graft.Stack(["a", "b"]), "adapters must be a tuple of text"),
    (lambda: graft.Stack(None), "adapters must be a tuple of text"),
    (lambda: graft.Average((1, 2)), "adapters must be a tuple of text"),
    (lambda: graft.Frozen("a", examples=5), "examples must be a tuple of tuples of whole numbers"),
    (lambda: graft.Frozen("a", examples=((1.5,),)), "examples must be a tuple of tuples of whole numbers"),
    (lambda: graft.Frozen("a", examples=("ab",)), "examples must be a tuple of tuples of whole numbers"),
    (lambda: graft.Frozen("a", examples=((3, -1),)), "examples must be rows of token ids"),
    (lambda: graft.Frozen("a", examples=((),)), "examples must be rows of token ids"),
    (lambda: graft.Frozen("a", examples=((0, zoo.VOCABULARY),)), f"the base knows {zoo.VOCABULARY}"),
    (lambda: graft.LoRA() + 5, r"terms must be a tuple of methods, got \(LoRA.*, 5\)"),
    (lambda: Sum((graft.LoRA,)), "terms must be a tuple of methods"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_attached(value: Any, said: str) -> None:
    model = grafted("llama", graft.LoRA(rank=2), graft.LoRA(rank=3), graft.LoRA(rank=2))
    with pytest.raises(BadInput, match=said):
        attach(model, value(), "made")
    assert list(require(model).adapters) == ["a", "b", "c"]


def test_places_have_no_mean() -> None:
    model = grafted("llama", graft.RandomMask(density=0.1, seed=0))
    cases.move(attach(model, graft.RandomMask(density=0.1, seed=0), "b"))
    other = attach(model, graft.RandomMask(density=0.1, seed=0), "c")
    other.parts[next(iter(other.parts))].select(torch.arange(len(next(iter(other.parts.values())).at)))  # type: ignore[attr-defined]
    attach(model, graft.Average(("a", "b")), "alike")
    with pytest.raises(Refused, match="holds places"):
        attach(model, graft.Average(("a", "c")), "apart")
