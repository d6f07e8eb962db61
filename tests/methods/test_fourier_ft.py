"""FourierFT: published counts, the transform as a sum of waves, its places, starts, refusals."""

import math

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.methods.fourier_ft import FourierFT
from methods.sizes import counts


@pytest.mark.parametrize(
    ("model", "trainable"),
    [("roberta-base", 24_000), ("roberta-large", 48_000), ("llama-7b", 64_000)],  # 0.024M, 0.048M, 0.064M
)
def test_counts_are_the_published_ones(model: str, trainable: int) -> None:
    found = counts(model, FourierFT(frequencies=1000))
    assert found.trainable == trainable
    assert found.stored == 4 * (trainable + 1000 + found.head)  # the places once, for one shape


def test_equation() -> None:
    plain, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = cases.grafted(tuned, "fourier_ft", frequencies=5, scale=90.0, sites="q down")
    assert sum(key.startswith("shared") for key in adapter.parts) == 2  # one set of places for each shape
    for index, layer in enumerate(plain.bert.encoder.layer):
        for role, linear in (("q", layer.attention.self.query), ("down", layer.output.dense)):
            part = adapter.parts[f"encoder.{index}.{role}"]
            out, width = linear.weight.shape
            rows, columns = torch.arange(out)[:, None] / out, torch.arange(width)[None, :] / width
            for place, c in zip(part.lent[0].at.tolist(), part.c.tolist(), strict=True):
                j, k = divmod(place, width)
                linear.weight.data += 90.0 * c * torch.cos(2 * math.pi * (j * rows + k * columns)) / (out * width)
    batch = zoo.batch(plain)
    want = zoo.forward(plain, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)


def test_places_are_different_and_those_of_the_seed() -> None:
    first, again, other = (
        attach(zoo.tiny("bert"), FourierFT(frequencies=1024, seed=seed)).parts["shared.0"].at for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert sorted(first.tolist()) == list(range(1024))


def test_starts() -> None:
    model = zoo.tiny("bert")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, FourierFT(frequencies=500, init="zeros"))
    torch.testing.assert_close(zoo.forward(model, batch), base, atol=1e-6, rtol=0)
    zoo.forward(model, batch).square().mean().backward()
    assert all(part.c.grad.any() for key, part in adapter.parts.items() if "shared" not in key)
    assert FourierFT().start == "elsewhere" and FourierFT(init="zeros").start == "exact"
    drawn = attach(zoo.tiny("bert"), FourierFT(frequencies=1000)).parts["encoder.0.q"].c.detach()
    assert 0.9 < float(drawn.std()) < 1.1 and abs(float(drawn.mean())) < 0.15


def test_impossible_settings() -> None:
    for settings in ({"frequencies": 0}, {"scale": 0.0}, {"seed": -1}):
        with pytest.raises(BadInput, match=f"FourierFT: {next(iter(settings))} must"):
            FourierFT(**settings)
    with pytest.raises(BadInput, match=r"1025 frequencies at encoder\.0\.q, .* choose at most 1024"):
        attach(zoo.tiny("bert"), FourierFT(frequencies=1025))
    with pytest.raises(Refused, match="is a vector"):
        attach(zoo.tiny("bert"), FourierFT(frequencies=2, sites="norm"))
