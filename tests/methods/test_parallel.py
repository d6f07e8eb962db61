"""Parallel: the weighted sum of what adapters add, whatever they are, merged too."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import graft
import zoo
from graft.attach import attach, require, use
from graft.errors import BadInput, GraftError, Refused


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


SPARSE = graft.LotterySparse(density=0.1)
CHANGING = [
    (SPARSE, SPARSE),
    (graft.RandomMask(density=0.1), graft.RandomMask(density=0.2, seed=1)),
    (graft.LoHa(rank=2), graft.FourierFT(frequencies=10)),
    (graft.LoRA(rank=2), graft.HRA(rank=2)),
    (graft.IntrinsicSubspace(dimension=16), graft.Mixout()),
    (graft.BitFit(), graft.BitFit()),
]


@torch.no_grad()
@pytest.mark.parametrize("methods", CHANGING, ids=lambda pair: "+".join(type(each).__name__ for each in pair))
def test_of_what_changes_parameters_it_is_their_weighted_sum(methods: tuple[Any, Any], tmp_path: Path) -> None:
    """W + φ_task + φ_language by dense arithmetic, attached, merged and loaded."""
    model, plain = grafted("bert", *methods), zoo.tiny("bert")
    adapters = require(model).adapters
    shares, batch = {"a": 1.0, "b": -0.5}, zoo.batch(model)
    for site in (placed.site for placed in adapters["a"].placed if placed.site is not None):
        for name in adapters["a"].parts[site.name].params(site):
            before = site.view(name).clone()
            moved = {a: adapters[a].parts[site.name].params(site)[name] - before for a in shares}
            site.bind(plain).view(name).copy_(before + sum(shares[a] * moved[a] for a in shares))
    want = zoo.forward(plain, batch)
    made = attach(model, graft.Parallel(("a", "b"), tuple(shares.values())), "both")
    torch.testing.assert_close(zoo.forward(model, batch), want, atol=1e-5, rtol=1e-5)
    assert made.counts.changed <= sum(adapters[name].counts.changed for name in shares)
    graft.save(model, "both", tmp_path / "both")
    fresh = zoo.tiny("bert")
    graft.load(fresh, tmp_path / "both")
    torch.testing.assert_close(zoo.forward(fresh, batch), want, atol=1e-5, rtol=1e-5)
    for name in shares:
        graft.detach(model, name)
    graft.merge(model, "both")
    torch.testing.assert_close(zoo.forward(model, batch), want, atol=1e-5, rtol=1e-5)


def test_sparse_updates_train_and_decay_as_they_do_alone() -> None:
    model = grafted("llama", SPARSE, SPARSE)
    made = attach(model, graft.Parallel(("a", "b"), weights=(1, 1)), "both")
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    part = made.parts["decoder.0.q"]
    assert [tuple(p.shape) for p in part.decayed()] == [tuple(p.shape) for p in part.parameters()]
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_sites_where_none_of_them_has_a_part_are_left_out() -> None:
    model = grafted("llama", graft.BitFit(), graft.BitFit())
    with use(model, "a"):
        want = zoo.forward(model, zoo.batch(model))
    made = attach(model, graft.Parallel(("a", "b"), weights=(1.0, 0.0)), "both")
    torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), want)
    one = require(model).adapters["a"]
    assert made.coverage == one.coverage and "norm" not in made.coverage
    assert made.counts.changed == one.counts.changed
    with pytest.raises(Refused, match="has no bias"):
        for name in "ab":
            graft.detach(model, name)
        graft.merge(model, "both")


@pytest.mark.parametrize(
    ("first", "second", "reached"),
    [
        (graft.AdapterDrop("pfeiffer(bottleneck=4)", drop=1), graft.AdapterDrop("pfeiffer(bottleneck=3)", drop=1), 1),
        (graft.AdapterDrop("lora", drop=1), graft.AdapterDrop("lora", drop=1, robust=True, served=1), 2),
        (graft.LoRA(rank=2), graft.AdapterDrop("lora(rank=2)", drop=1, robust=True), 4),
        (graft.LoRA(rank=2), graft.Parallel(hosts=("lora(rank=2)", "lora(rank=3)")), 4),
        (graft.Pfeiffer(bottleneck=4), graft.AdapterFusion(hosts=("pfeiffer(bottleneck=4)",) * 2), 2),
    ],
    ids=str,
)
def test_of_methods_that_are_hosts_themselves(first: Any, second: Any, reached: int, tmp_path: Path) -> None:
    model = grafted("llama", first, second)
    with use(model, "b"):
        want = zoo.forward(model, zoo.batch(model))
    made = attach(model, graft.Parallel(("a", "b"), weights=(0.0, 1.0)), "both")
    torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), want)
    served = [require(model).adapters[name].deployed() for name in "ab"]
    trains = [sum(p.numel() for part in own.values() for p in part.parameters() if p.requires_grad) for own in served]
    assert sum(made.coverage.values()) == reached and made.counts.trainable == sum(trains)
    graft.save(model, "both", tmp_path / "both")
    fresh = zoo.tiny("llama")
    graft.load(fresh, tmp_path / "both")
    torch.testing.assert_close(zoo.forward(fresh, zoo.batch(fresh)), want)


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (("lora", "lora+ia3"), "'lora[+]ia3' .*it is a sum of methods"),
        (("top_layers", "top_layers"), "it names no sites"),
        (("parallel", "parallel"), "it names no sites"),
        (("lottery_sparse", "lottery_sparse"), "stored in another form than it trains in"),
        (("hyperformer", "hyperformer"), "it tells tasks apart"),
        (("prefix_tuning", "prefix_tuning"), r"at decoder\.0\.attention it does something else than to add"),
        (("ladder_side", "ladder_side"), "it does something else"),
        (("lora", "ia3"), "hosts must have the same sites"),
        (("bitfit", "random_mask(sites='all-linear norm')"), "act at different places: only .random_mask.* one of 5"),
        (("houlsby(sites='down', train_layernorm=False)", "random_mask(sites='down')"), "only change parameters"),
        (("lora(rang=2)", "lora"), "no option rang"),
        (("lora",), "must name several"),
    ],
)
def test_hosts_that_cannot_be(hosts: tuple[str, ...], said: str) -> None:
    with pytest.raises(GraftError, match=said):
        attach(zoo.tiny("llama"), graft.Parallel(hosts=hosts))


def test_a_fusion_only_adds_and_names_as_many_as_it_hosts() -> None:
    for host in ("ia3", "random_mask", "meft"):
        with pytest.raises(Refused, match="it does something else than to add"):
            attach(zoo.tiny("llama"), graft.AdapterFusion(hosts=(host, host)))
    with pytest.raises(BadInput, match="hosts must be as many as adapters, 2"):
        graft.AdapterFusion(("a", "b"), hosts=("lora",) * 3)


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
    (lambda: graft.Parallel(("a", "b"), weights=(0, 0)), "weights must not all be 0"),
])  # fmt: skip
def test_what_cannot_be(value: Any, said: str) -> None:
    model = grafted("llama", graft.LoRA(rank=2), graft.LoRA(rank=2))
    with pytest.raises(BadInput, match=said):
        attach(model, value(), "made")
