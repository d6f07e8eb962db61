"""VeRA: published counts, the formula by hand, one frozen pair of the largest size, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.methods.vera import VeRA
from methods.sizes import counts


@pytest.mark.parametrize(
    ("model", "rank", "trainable"),
    [
        ("roberta-base", 1024, 43_008),  # 0.043M in the paper
        ("roberta-large", 256, 61_440),  # 0.061M
        ("gpt2-medium", 1024, 98_304),
        ("gpt2-large", 1024, 165_888),
    ],
)
def test_counts_are_the_published_ones(model: str, rank: int, trainable: int) -> None:
    found = counts(model, VeRA(rank=rank))
    assert found.trainable == trainable
    width = {"roberta-base": 768, "roberta-large": 1024, "gpt2-medium": 1024, "gpt2-large": 1280}[model]
    assert found.rank == min(rank, width)
    assert found.stored == 4 * (trainable + 2 * rank * width + found.head)  # the frozen pair is stored, once


def test_equation() -> None:
    plain, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = cases.grafted(tuned, "vera", rank=5, sites="q down")
    pair = adapter.parts["shared.0"]
    assert pair.A.shape == (5, 48) and pair.B.shape == (32, 5)
    for index, layer in enumerate(plain.bert.encoder.layer):
        for role, linear in (("q", layer.attention.self.query), ("down", layer.output.dense)):
            part = adapter.parts[f"encoder.{index}.{role}"]
            A, B = pair.A[:, : linear.in_features], pair.B[: linear.out_features]
            linear.weight.data += torch.diag(part.b.detach()) @ B @ torch.diag(part.d.detach()) @ A
    batch = zoo.batch(plain)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=1e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=1e-5, rtol=1e-5)


def test_looked_up_inputs() -> None:
    model, batch = zoo.tiny("llama"), zoo.batch(zoo.tiny("llama"))
    cases.grafted(model, "vera", rank=5, sites="embed")
    attached = zoo.forward(model, batch)
    merge(model)
    torch.testing.assert_close(zoo.forward(model, batch), attached, atol=1e-5, rtol=1e-5)


def test_start_and_what_stays_frozen() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, VeRA(rank=7, d_initial=0.3))
    pair = adapter.parts["shared.0"]
    assert not list(pair.parameters())
    assert not torch.equal(pair.A, attach(zoo.tiny("llama"), VeRA(rank=7, seed=1)).parts["shared.0"].A)
    assert torch.equal(pair.B, attach(zoo.tiny("bert"), VeRA(rank=7)).parts["shared.0"].B)
    bound = (6 / 32) ** 0.5  # Kaiming uniform with gain √2
    assert 0.9 * bound < pair.A.abs().max() <= bound
    for key, part in adapter.parts.items():
        if key != "shared.0":
            assert not part.b.any() and torch.equal(part.d, torch.full((7,), 0.3))


def test_dropout_is_on_the_branch() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, VeRA(rank=4, dropout=0.5))
    model.train()
    assert torch.equal(zoo.forward(model, batch), base)
    cases.move(adapter)
    assert not torch.equal(zoo.forward(model, batch), zoo.forward(model, batch))


def test_impossible_settings() -> None:
    for settings in ({"rank": 0}, {"d_initial": 0.0}, {"dropout": 1.0}, {"seed": -1}):
        with pytest.raises(BadInput, match=f"VeRA: {next(iter(settings))} must"):
            VeRA(**settings)
    with pytest.raises(Refused, match="the weight there is a vector"):
        attach(zoo.tiny("llama"), VeRA(rank=2, sites="norm"))
    with pytest.raises(Refused, match="a stack of them"):
        attach(zoo.tiny("mixtral"), VeRA(rank=2, sites="down"))
    with pytest.raises(BadInput, match="dropout must be 0 where decomposed"):
        VeRA(dropout=0.1, decomposed=True)
