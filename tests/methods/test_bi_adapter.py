"""Bi-Adapter: published bytes and codebook, the block by hand, gradients, that what is stored is what was trained."""

import math
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach
from graft.checkpoint import load, save
from graft.errors import BadInput
from graft.methods.bi_adapter import BiAdapter, Packed, Quantized, codebook
from methods import blocks
from methods.sizes import counts


def test_published_size() -> None:
    found = counts("roberta-base", BiAdapter(32))  # as wide and deep as the ViT-B of the paper
    assert found.trainable == 589_824
    assert found.stored - 4 * found.head == 73_920
    assert counts("roberta-base", BiAdapter(32, packed=True)).trainable == 12 * 4


def test_codebook() -> None:
    assert codebook(1) == pytest.approx((-0.6744897501960817, 0.6744897501960817))
    normal = NormalDist()
    for bits in (2, 8):
        found = codebook(bits)
        assert len(found) == 2**bits
        ends = [-math.inf, *((a + b) / 2 for a, b in pairwise(found)), math.inf]
        for q, (below, above) in zip(found, pairwise(ends), strict=True):
            assert normal.cdf(q) == pytest.approx((normal.cdf(below) + normal.cdf(above)) / 2, abs=1e-12)


def nearest(weight: Tensor, bits: int) -> Tensor:
    q = torch.tensor(codebook(bits))
    mean, deviation = weight.mean(), weight.std()
    places = (((weight - mean) / (deviation + 1e-5))[..., None] - q).abs().argmin(-1)
    return q[places] * deviation + mean


@pytest.mark.parametrize("name", blocks.REWRITE)
def test_block_by_hand(name: str) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "bi_adapter", bits=2, scale=0.5)

    def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
        part = adapter.parts[blocks.key(name, index, "ffn")]
        return out + 0.5 * F.relu(residual @ nearest(part.down.weight, 2).T) @ nearest(part.up.weight, 2).T

    blocks.REWRITE[name](base, ffn=change)
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_gradients_pass_the_codebook_straight_and_mean_and_deviation_too() -> None:
    weight, slope = torch.randn(3, 5), torch.randn(3, 5)
    part = Quantized(nn.Parameter(weight.clone()), 1)
    (part.dense() * slope).sum().backward()
    free = weight.clone().requires_grad_()
    mean, deviation = free.mean(), free.std()
    normal = (free - mean) / (deviation + 1e-5)
    q = normal.detach().sign() * 0.6744897501960817
    ((normal + (q - normal).detach()) * deviation + mean).mul(slope).sum().backward()
    torch.testing.assert_close(part.weight.grad, free.grad)


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_is_what_it_was(bits: int) -> None:
    part = Quantized(nn.Parameter(torch.randn(5, 7)), bits)
    packed = part.packed()
    assert len(packed.codes) == math.ceil(35 * bits / 8)
    assert torch.equal(packed.dense(), part.dense())


def test_stored_and_served_are_the_bits(tmp_path: Path) -> None:
    model, other = zoo.tiny("bert"), zoo.tiny("bert")
    cases.grafted(model, "bi_adapter", bits=3)
    save(model, "default", tmp_path / "bits")
    adapter = load(other, tmp_path / "bits")
    assert adapter.method == BiAdapter(4, bits=3, packed=True)
    part = adapter.parts["encoder.0.ffn"]
    assert isinstance(part.down, Packed) and sum(p.numel() for p in part.parameters()) == 4
    batch = zoo.batch(model)
    assert torch.equal(zoo.forward(other, batch), zoo.forward(model, batch))
    save(other, "default", tmp_path / "again")  # not quantized once more
    third = zoo.tiny("bert")
    load(third, tmp_path / "again")
    assert torch.equal(zoo.forward(third, batch), zoo.forward(model, batch))


def test_never_starts_at_zero() -> None:
    part = attach(zoo.tiny("bert", hidden_size=256), BiAdapter(64)).parts["encoder.0.ffn"]
    weight = part.up.weight.detach()
    assert 8e-4 < weight.std() < 1e-3 and weight.abs().max() <= 2e-3
    assert len(part.up.dense().unique()) == 2


def test_impossible_settings() -> None:
    for settings in ({"bottleneck": 0}, {"bits": 0}, {"bits": 9}, {"scale": 0.0}, {"dropout": 1.0}):
        with pytest.raises(BadInput, match=f"BiAdapter: {next(iter(settings))} must"):
            BiAdapter(**settings)
