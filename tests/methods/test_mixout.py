"""Mixout: counts, the mixture entry by entry, its mean and exact gradient, what is merged, refusals."""

import pytest
import torch

import cases
import zoo
from graft.anatomy import examine, select
from graft.attach import attach, merge
from graft.errors import BadInput
from graft.methods.mixout import Mixed, Mixout
from methods.sizes import counts


def test_counts() -> None:
    found = counts("roberta-base", Mixout())
    assert found.trainable == found.changed == 12 * (4 * 768 * 768 + 2 * 768 * 3072)


def part_of(p: float) -> tuple[Mixed, object, torch.Tensor]:
    model = zoo.tiny("bert")
    site = select(examine(model), "q @ 0").sites[0].bind(model)
    part = Mixed(site, p)
    with torch.no_grad():
        part.weight.add_(torch.randn(part.weight.shape, generator=torch.Generator().manual_seed(0)))
    return part, site, model.bert.encoder.layer[0].attention.self.query.weight.detach()


def test_each_entry_is_the_formula_and_the_mean_is_the_weight() -> None:
    part, site, before = part_of(0.8)
    own = part.weight.detach()
    mixed = part.params(site)["weight"].detach()
    pretrained, trained = before - 0.8 * before, own - 0.8 * before  # M = 0 and M = 1, over 1 − p
    is_kept = (mixed - trained / 0.2).abs() < (mixed - pretrained / 0.2).abs()
    torch.testing.assert_close(mixed, torch.where(is_kept, trained, pretrained) / 0.2, atol=1e-5, rtol=1e-4)
    assert 0.15 < float(is_kept.float().mean()) < 0.25
    assert is_kept.any(0).all() or not (is_kept.all(0) | ~is_kept.any(0)).all()  # entries, not whole columns
    mean = torch.stack([part.params(site)["weight"].detach() for _ in range(4000)]).mean(0)
    assert float((mean - own).abs().max()) < 0.25 and float((mean - own).abs().mean()) < 0.03
    assert torch.equal(part.eval().params(site)["weight"], own)


def test_the_gradient_has_the_factor() -> None:
    part, site, _ = part_of(0.75)
    part.params(site)["weight"].sum().backward()
    assert set(part.weight.grad.unique().tolist()) == {0.0, 4.0}


def test_what_is_drawn_is_not_merged() -> None:
    model = zoo.tiny("bert")
    adapter = cases.grafted(model, "mixout", sites="q")
    model.train()
    merge(model)
    key = "encoder.0.q"
    assert torch.equal(model.bert.encoder.layer[0].attention.self.query.weight, adapter.parts[key].weight)
    assert adapter.parts[key].training


def test_impossible_settings() -> None:
    attach(zoo.tiny("bert"), Mixout(p=0.0))
    for p in (1.0, -0.1):
        with pytest.raises(BadInput, match="Mixout: p must be at least 0 and below 1"):
            Mixout(p=p)
