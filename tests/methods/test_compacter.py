"""Compacter: published counts, the block with Kronecker products built by hand, one shared rule, starts, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.compacter import Compacter
from methods import blocks
from methods.sizes import TOTAL_T5, counts

PLAIN = {"train_layernorm": False}
SELF = "self: attention; ffn"
PUBLISHED = [
    ("roberta-base", Compacter(**PLAIN), 57_088),  # AdapterHub
    ("roberta-large", Compacter(**PLAIN), 152_128),  # AdapterHub
    # 161,728 is printed, 0.073 %: it has T5's two final norms too, which belong to no block.
    ("t5-base", Compacter(), 161_728),
    ("roberta-base", Compacter(k=2, **PLAIN), 24 * 5 * (768 + 24) + 64),
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: Compacter, trainable: int) -> None:
    assert counts(model, method).trainable == trainable
    assert model != "t5-base" or round(100 * trainable / TOTAL_T5, 3) == 0.073


@pytest.mark.parametrize(("n", "k"), [(4, 1), (2, 3)])
@pytest.mark.parametrize("name", blocks.REWRITE)
def test_block_by_hand(name: str, n: int, k: int) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "compacter", n=n, k=k, sites=SELF, **PLAIN)
    rule = adapter.parts["shared.0"].A

    def matrix(s: Tensor, t: Tensor) -> Tensor:
        return sum(torch.kron(rule[i], s[i] @ t[i]) for i in range(n))

    def after(role: str) -> blocks.Change:
        def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
            part = adapter.parts[blocks.key(name, index, role)]
            down, up = matrix(part.down_s, part.down_t), matrix(part.up_s, part.up_t)
            return out + F.gelu(out @ down + part.down_bias, approximate="tanh") @ up + part.up_bias

        return change

    blocks.REWRITE[name](base, attention=after("attention"), ffn=after("ffn"))
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_one_rule_for_both_stacks_with_the_gradient_of_all() -> None:
    model = zoo.tiny("t5")
    adapter = cases.grafted(model, "compacter", **PLAIN)
    rules = [key for key in adapter.parts if key.startswith("shared")]
    assert rules == ["shared.0"] and sum(p.dim() == 3 and p.shape == (4, 4, 4) for p in adapter.parameters()) == 1
    batch = zoo.batch(model)
    rule = adapter.parts["shared.0"].A
    (whole,) = torch.autograd.grad(zoo.forward(model, batch).square().mean(), [rule])
    for stack in ("encoder", "decoder"):
        for key, part in adapter.parts.items():
            if key.startswith(stack):
                part.up_t.data.zero_()
        (without,) = torch.autograd.grad(zoo.forward(model, batch).square().mean(), [rule])
        assert not torch.allclose(whole, without)


def test_never_builds_the_matrix() -> None:
    """No tensor of a forward has as many entries as W."""
    seen: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            seen.append(out.numel() if isinstance(out, Tensor) else 0)
            return out

    model = zoo.tiny("bert", hidden_size=1024)
    part = cases.grafted(model, "compacter", **PLAIN).parts["encoder.0.ffn"]
    x = torch.randn(1, 2, 1024)
    with Watch():
        part.after(x, x, None, None)
    assert max(seen) < 1024 * 256


def test_starts_next_to_the_base() -> None:
    adapter = attach(zoo.tiny("bert", hidden_size=256), Compacter(reduction=4, n=8, **PLAIN))
    assert abs(float(adapter.parts["shared.0"].A.detach().std()) / 1e-4 - 1) < 0.15
    for key, part in adapter.parts.items():
        if key != "shared.0":
            x = torch.randn(100, 256)
            change = part.after(torch.zeros_like(x), x, None, None) - x
            assert change.norm() / x.norm() < 1e-6
            assert part.down_s.detach().abs().max() <= (6 / (32 + 1)) ** 0.5
            assert part.up_t.detach().abs().max() <= (6 / (32 + 1)) ** 0.5
            assert not part.down_bias.any() and not part.up_bias.any()


def test_refusals() -> None:
    with pytest.raises(BadInput, match="Compacter: k must be at least 1"):
        Compacter(k=0)
    with pytest.raises(BadInput, match=r"n=3 has to divide the width 32 and the bottleneck 8.* Choose an n"):
        attach(zoo.tiny("bert"), Compacter(4, n=3))
    with pytest.raises(BadInput, match=r"k=3 is above the smaller side .* 2\. Choose a smaller k"):
        attach(zoo.tiny("bert"), Compacter(4, k=3))
