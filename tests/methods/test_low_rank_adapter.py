"""Low-rank adapters: the published count, the block by hand, starts, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.low_rank_adapter import LowRankAdapter
from methods import blocks
from methods.sizes import TOTAL_T5, counts

PLAIN = {"train_layernorm": False}
SELF = "self: attention; ffn"


def test_count_is_the_published_one() -> None:
    """0.073 % of T5-base."""
    method = LowRankAdapter(sites=SELF)
    trainable = counts("t5-base", method).trainable
    assert trainable == 48 * 3 * (768 + 24) + 62 * 768
    assert round(100 * trainable / TOTAL_T5, 3) == 0.073
    assert counts("roberta-base", LowRankAdapter(rank=4, **PLAIN)).trainable == 24 * 9 * (768 + 24)
    with_norms = counts("roberta-base", LowRankAdapter(rank=4)).trainable
    assert with_norms == 24 * 9 * (768 + 24) + 25 * 2 * 768


@pytest.mark.parametrize("name", blocks.REWRITE)
def test_block_by_hand(name: str) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "low_rank_adapter", sites=SELF, **PLAIN)

    def after(role: str) -> blocks.Change:
        def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
            part = adapter.parts[blocks.key(name, index, role)]
            down, up = part.down_s @ part.down_t, part.up_s @ part.up_t
            assert down.shape == (32, 8) and torch.linalg.matrix_rank(down) == 3
            return out + F.gelu(out @ down + part.down_bias, approximate="tanh") @ up + part.up_bias

        return change

    blocks.REWRITE[name](base, attention=after("attention"), ffn=after("ffn"))
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_starts_uniform_and_trains_at_once() -> None:
    model = zoo.tiny("bert", hidden_size=256)
    adapter = attach(model, LowRankAdapter(reduction=4, rank=16, **PLAIN))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    for part in adapter.parts.values():
        bound = (6 / (256 + 16)) ** 0.5
        assert part.down_s.detach().abs().max() <= bound
        assert abs(float(part.down_s.detach().std()) * 3**0.5 / bound - 1) < 0.05
        assert not part.down_bias.any() and not part.up_bias.any()
        assert all(p.grad.any() for p in part.parameters())


def test_refusals() -> None:
    with pytest.raises(BadInput, match="LowRankAdapter: rank must be at least 1"):
        LowRankAdapter(rank=0)
    with pytest.raises(BadInput, match="LowRankAdapter: reduction must be at least 1"):
        LowRankAdapter(0)
    with pytest.raises(BadInput, match=r"reduction 16 leaves 2 of the width 32, and rank 3 .* at most 10"):
        attach(zoo.tiny("bert"), LowRankAdapter(16, 3))
