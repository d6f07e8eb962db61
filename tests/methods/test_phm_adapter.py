"""PHM adapters: the published count, the block with Kronecker products built by hand, starts, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.phm_adapter import PHMAdapter
from methods import blocks
from methods.sizes import TOTAL_T5, counts

PLAIN = {"train_layernorm": False}
SELF = "self: attention; ffn"


def test_count_is_the_published_one() -> None:
    """398,976, or 0.179 % of T5-base, counts the two final norms too; those belong to no block."""
    trainable = counts("t5-base", PHMAdapter(n=12, sites=SELF)).trainable
    assert trainable == 398_976
    assert round(100 * trainable / TOTAL_T5, 3) == 0.179
    assert counts("roberta-base", PHMAdapter(**PLAIN)).trainable == 24 * (2 * 768 * 24 // 4 + 2 * 64 + 24 + 768)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("name", blocks.REWRITE)
def test_block_by_hand(name: str, n: int) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "phm_adapter", n=n, sites=SELF, **PLAIN)

    def after(role: str) -> blocks.Change:
        def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
            part = adapter.parts[blocks.key(name, index, role)]
            down = sum(torch.kron(A, B) for A, B in zip(part.down_A, part.down_B, strict=True))
            up = sum(torch.kron(A, B) for A, B in zip(part.up_A, part.up_B, strict=True))
            return out + F.gelu(out @ down + part.down_bias, approximate="tanh") @ up + part.up_bias

        return change

    blocks.REWRITE[name](base, attention=after("attention"), ffn=after("ffn"))
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_starts_next_to_the_base() -> None:
    model = zoo.tiny("bert", hidden_size=256)
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, PHMAdapter(reduction=4, n=8, **PLAIN))
    assert 0 < (zoo.forward(model, batch) - base).abs().max() < 1e-3
    for part in adapter.parts.values():
        assert abs(float(part.down_A.detach().std()) / 1e-4 - 1) < 0.15
        bound = (6 / (256 // 8 + 64 // 8)) ** 0.5
        assert part.down_B.detach().abs().max() <= bound and part.up_B.detach().abs().max() <= bound
        assert abs(float(part.down_B.detach().std()) * 3**0.5 / bound - 1) < 0.05


def test_refusals() -> None:
    with pytest.raises(BadInput, match="PHMAdapter: n must be at least 1"):
        PHMAdapter(n=0)
    with pytest.raises(BadInput, match=r"n=3 has to divide the width 32 and the bottleneck 8.* Choose an n"):
        attach(zoo.tiny("bert"), PHMAdapter(4, n=3))
    with pytest.raises(BadInput, match=r"reduction 64 leaves no bottleneck in a width of 32\. Choose at most 8"):
        attach(zoo.tiny("bert"), PHMAdapter(64))
