"""LoHa: counts of other implementations, the formula entry by entry, the rank it promises, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.methods.loha import LoHa
from methods.sizes import counts


def test_counts() -> None:
    found = counts("roberta-base", LoHa(rank=4))
    assert found.trainable == 24 * 2 * 4 * (768 + 768)
    assert found.rank == 16
    assert counts("llama-7b", LoHa(rank=8)).trainable == 2 * 4_194_304  # twice the LoRA of the same rank


@pytest.mark.parametrize("sites", ["q down", "embed"])
def test_equation(sites: str) -> None:
    plain, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = cases.grafted(tuned, "loha", rank=2, alpha=6.0, sites=sites)
    for placed in adapter.placed:
        part, weight = placed.part, plain.get_submodule(placed.site.path).weight.data
        across = placed.site.role == "embed"  # an embedding's inputs are its rows
        for row in range(placed.site.outputs):
            one = sum(part.B1[row, k] * part.A1[k] for k in range(2))
            two = sum(part.B2[row, k] * part.A2[k] for k in range(2))
            target = weight[:, row] if across else weight[row]
            target += (3.0 * one * two).detach()
    batch = zoo.batch(plain)
    plain.tie_weights()
    torch.testing.assert_close(
        zoo.forward(tuned.base_model, batch), zoo.forward(plain.base_model, batch), atol=1e-5, rtol=1e-5
    )


def test_rank_of_the_update_is_the_square_of_its_width() -> None:
    model = zoo.tiny("llama")
    before = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    cases.grafted(model, "loha", rank=4)
    merge(model)
    update = (model.model.layers[0].self_attn.q_proj.weight - before).double()
    assert torch.linalg.matrix_rank(update, rtol=1e-5) == 16


def test_starts_with_a_zero_and_learns_from_it() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, LoHa(rank=2))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    for part in adapter.parts.values():
        assert not part.B2.any() and part.B2.grad.any()
        assert all(p.any() and not p.grad.any() for p in (part.B1, part.A1, part.A2))


def test_impossible_settings() -> None:
    with pytest.raises(BadInput, match="LoHa: rank must be at least 1, got 0"):
        LoHa(rank=0)
    with pytest.raises(BadInput, match="LoHa: alpha must not be 0"):
        LoHa(alpha=0.0)
    with pytest.raises(BadInput, match="choose at most 16"):
        attach(zoo.tiny("llama"), LoHa(rank=20))
    with pytest.raises(Refused, match="a stack of them"):
        attach(zoo.tiny("mixtral"), LoHa(rank=2, sites="down"))
