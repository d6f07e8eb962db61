"""Parallel and scaled parallel adapters: published counts, the block by hand, starts, first gradients, refusals."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.parallel_adapter import ParallelAdapter
from methods import blocks
from methods.sizes import counts

PUBLISHED = [
    ("roberta-base", ParallelAdapter(384), 7_091_712),  # AdapterHub, par_bn
    ("roberta-base", ParallelAdapter(384, learned_scale=True), 7_091_724),  # AdapterHub, scaled_par_bn
    ("roberta-large", ParallelAdapter(512), 25_202_688),
    ("codet5-base", ParallelAdapter(30), 1_125_072),
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: ParallelAdapter, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


@pytest.mark.parametrize("where", ["ffn", "self: attention"])
@pytest.mark.parametrize("reads", ["residual", "normed"])
@pytest.mark.parametrize("model_name", blocks.REWRITE)
def test_block_by_hand(model_name: str, reads: Literal["residual", "normed"], where: str) -> None:
    base, tuned = zoo.tiny(model_name), zoo.tiny(model_name)
    adapter = cases.grafted(tuned, "parallel_adapter", scale=2.5, input=reads, sites=where)
    role = where.removeprefix("self: ")

    def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
        part = adapter.parts[blocks.key(model_name, index, role)]
        u = residual if reads == "residual" else inner
        return out + 2.5 * (F.relu(u @ part.down.T + part.down_bias) @ part.up.T + part.up_bias)

    blocks.REWRITE[model_name](base, **{role: change})
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_learned_scale_multiplies_the_output() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    adapter = attach(model, ParallelAdapter(4, learned_scale=True))
    assert all(part.scale.item() == 1.0 for part in adapter.parts.values())
    cases.move(adapter)
    for part in adapter.parts.values():
        part.scale.data.fill_(3.0)
    expected = zoo.forward(model, batch)
    for part in adapter.parts.values():
        part.scale.data.fill_(1.0)
        part.up.data *= 3
        part.up_bias.data *= 3
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_starts_as_the_base_and_moves_only_up_first() -> None:
    model = zoo.tiny("llama", hidden_size=256, head_dim=8)
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, ParallelAdapter(64))
    out = zoo.forward(model, batch)
    assert torch.equal(out, base)
    out.square().mean().backward()
    for part in adapter.parts.values():
        assert not part.down.grad.any() and part.up.grad.any()
        assert part.down.detach().abs().max() <= 256**-0.5
        assert abs(float(part.down.detach().std()) / (256**-0.5 / 3**0.5) - 1) < 0.05
        assert not part.down_bias.any()


def test_impossible_settings() -> None:
    with pytest.raises(BadInput, match="ParallelAdapter: bottleneck must be at least 1"):
        ParallelAdapter(0)
    with pytest.raises(BadInput, match="ParallelAdapter: dropout must be"):
        ParallelAdapter(dropout=1.0)
