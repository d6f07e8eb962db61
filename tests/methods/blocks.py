"""Blocks written out by hand, with a function of ours in them: what bottleneck adapters must equal.

Each rewrites a tiny model's own `forward`s in place. `attention` and `ffn` say what becomes of a sub-layer's output:
they get (index of the layer, sub-layer output, residual stream, sub-layer input) and give the new output.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Change = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def keep(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
    return out


def bert(model: nn.Module, attention: Change = keep, ffn: Change = keep) -> None:
    """Post-norm: y = LN(residual + change(dense(x))), and the residual stream is what the sub-layer reads."""

    def write(module: nn.Module, index: int, change: Change) -> None:
        def forward(hidden: Tensor, stream: Tensor) -> Tensor:
            return module.LayerNorm(stream + change(index, module.dense(hidden), stream, stream))

        module.forward = forward

    for index, layer in enumerate(model.bert.encoder.layer):
        write(layer.attention.output, index, attention)
        write(layer.output, index, ffn)


def llama(model: nn.Module, attention: Change = keep, ffn: Change = keep) -> None:
    def write(layer: nn.Module, index: int) -> None:
        def forward(x: Tensor, **options: Any) -> Tensor:
            normed = layer.input_layernorm(x)
            a = x + attention(index, layer.self_attn(hidden_states=normed, **options)[0], x, normed)
            normed = layer.post_attention_layernorm(a)
            return a + ffn(index, layer.mlp(normed), a, normed)

        layer.forward = forward

    for index, layer in enumerate(model.model.layers):
        write(layer, index)


def gpt2(model: nn.Module, attention: Change = keep, ffn: Change = keep) -> None:
    def write(block: nn.Module, index: int) -> None:
        def forward(x: Tensor, *inputs: Any, **options: Any) -> Tensor:
            names = ("past_key_values", "attention_mask", "encoder_hidden_states")
            options = {**dict(zip(names, inputs, strict=False)), **options}
            options.pop("encoder_hidden_states", None), options.pop("encoder_attention_mask", None)
            normed = block.ln_1(x)
            a = x + attention(index, block.attn(normed, **options)[0], x, normed)
            normed = block.ln_2(a)
            return a + ffn(index, block.mlp(normed), a, normed)

        block.forward = forward

    for index, block in enumerate(model.transformer.h):
        write(block, index)


def t5(model: nn.Module, attention: Change = keep, ffn: Change = keep) -> None:
    """Layers are numbered through both stacks, the encoder's first; only self-attention changes."""

    def write(block: nn.Module, index: int) -> None:
        outer = block.layer[0]

        def self_attention(x: Tensor, attention_mask: Any = None, **options: Any) -> tuple:
            normed = outer.layer_norm(x)
            out, *rest = outer.SelfAttention(normed, mask=attention_mask, **options)
            return (x + attention(index, out, x, normed), *rest)

        outer.forward = self_attention
        inner = block.layer[-1]

        def feed_forward(x: Tensor) -> Tensor:
            normed = inner.layer_norm(x)
            return x + ffn(index, inner.DenseReluDense(normed), x, normed)

        inner.forward = feed_forward

    for index, block in enumerate([*model.encoder.block, *model.decoder.block]):
        write(block, index)


REWRITE = {"bert": bert, "llama": llama, "gpt2": gpt2, "t5": t5}


def key(model_name: str, index: int, role: str) -> str:
    """The key of the part at layer `index`, counted through both stacks."""
    if model_name == "t5":
        stack, index = ("encoder", index) if index < 2 else ("decoder", index - 2)
    else:
        stack = "encoder" if model_name == "bert" else "decoder"
    return f"{stack}.{index}.{role}"
