"""Houlsby's series adapters: published counts, the block by hand on post- and pre-norm models, starts, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.houlsby import Houlsby
from methods import blocks
from methods.sizes import counts

PLAIN = {"train_layernorm": False}
PUBLISHED = [
    ("roberta-base", Houlsby(48, **PLAIN), 1_789_056),  # AdapterHub, double_seq_bn
    ("roberta-base", Houlsby(64, **PLAIN), 2_379_264),
    ("roberta-large", Houlsby(64, **PLAIN), 6_343_680),
    ("gpt3", Houlsby(1, **PLAIN), 7_078_080),  # LoRA paper, 7.1M
    ("gpt3", Houlsby(8, **PLAIN), 40_109_568),  # LoRA paper, 40.1M
    # 7,414,464 and 19,768,704 are printed: those have one more layer norm inside each attention adapter.
    ("roberta-base", Houlsby(200, **PLAIN), 7_414_464 - 12 * 2 * 768),
    ("roberta-large", Houlsby(200, **PLAIN), 19_768_704 - 24 * 2 * 1024),
    # 1,855,104 is printed: it has T5's two final norms too, which belong to no block.
    ("t5-base", Houlsby(24, sites="self: attention; ffn"), 1_855_104),
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: Houlsby, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def test_norms_of_the_blocks_are_counted_when_they_train() -> None:
    assert counts("roberta-base", Houlsby(64)).trainable == 2_379_264 + 25 * 2 * 768
    assert (
        counts("llama-7b", Houlsby(64)).trainable
        == counts("llama-7b", Houlsby(64, **PLAIN)).trainable + (32 * 2 + 1) * 4096
    )


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu", "tanh"])
@pytest.mark.parametrize("model_name", blocks.REWRITE)
def test_block_by_hand(model_name: str, activation: str) -> None:
    base, tuned = zoo.tiny(model_name), zoo.tiny(model_name)
    adapter = cases.grafted(tuned, "houlsby", activation=activation, sites="self: attention; ffn", **PLAIN)
    sigma = {
        "gelu": F.gelu,
        "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "silu": F.silu,
        "tanh": torch.tanh,
    }[activation]

    def after(role: str) -> blocks.Change:
        def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
            part = adapter.parts[blocks.key(model_name, index, role)]
            return out + sigma(out @ part.down.T + part.down_bias) @ part.up.T + part.up_bias

        return change

    blocks.REWRITE[model_name](base, attention=after("attention"), ffn=after("ffn"))
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_cross_attention_has_adapters_too() -> None:
    model = zoo.tiny("t5")
    batch = zoo.batch(model)
    adapter = cases.grafted(model, "houlsby", **PLAIN)
    with_all = zoo.forward(model, batch)
    part = adapter.parts["decoder.1.cross.attention"]
    part.up.data.zero_(), part.up_bias.data.zero_()
    assert not torch.equal(zoo.forward(model, batch), with_all)


def test_norms_train_through_copies() -> None:
    base, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = attach(tuned, Houlsby(4))
    for part in adapter.parts.values():
        for name, parameter in part.named_parameters():
            parameter.data.zero_() if name in ("up", "up_bias") else None
    for index, layer in enumerate(base.bert.encoder.layer):
        for where, norm in (("attention.output", layer.attention.output.LayerNorm), ("output", layer.output.LayerNorm)):
            part = adapter.parts[f"encoder.{index}.norm.{where}.LayerNorm"]
            assert torch.equal(part.weight, norm.weight) and torch.equal(part.bias, norm.bias)
            part.weight.data += 0.3
            part.bias.data -= 0.2
            norm.weight.data += 0.3
            norm.bias.data -= 0.2
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("std", [1e-3, 1e-2])
def test_starts_truncated_at_two_deviations(std: float) -> None:
    model = zoo.tiny("bert", hidden_size=256)
    for part in attach(model, Houlsby(64, std=std, **PLAIN)).parts.values():
        assert not part.down_bias.any() and not part.up_bias.any()
        for weight in (part.down.detach(), part.up.detach()):
            assert weight.abs().max() <= 2 * std
            assert abs(float(weight.std()) / (0.8796 * std) - 1) < 0.05  # deviation of N(0, σ²) cut at ±2σ


def test_all_have_gradients_at_the_first_step() -> None:
    model = zoo.tiny("bert")
    adapter = attach(model, Houlsby(4))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_no_bottleneck_is_refused() -> None:
    with pytest.raises(BadInput, match=r"Houlsby: bottleneck must be at least 1, got 0\. Try 64"):
        Houlsby(0)
