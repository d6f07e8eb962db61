"""The small models that methods are looked at on."""

from functools import cache
from typing import Any

import torch
from torch import nn

from graft.anatomy import skeleton

LAYERS = 8
SIZE: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "vocab_size": 32,
}  # fmt: skip


@cache
def decoder() -> nn.Module:
    """A language model whose linear maps have no biases, without weights."""
    from transformers import LlamaConfig

    return skeleton(LlamaConfig(**SIZE, architectures=["LlamaForCausalLM"]))


@cache
def encoder() -> nn.Module:
    """A model whose linear maps have biases, without weights."""
    from transformers import BertConfig

    return skeleton(BertConfig(**SIZE))


@cache
def running() -> nn.Module:
    """The decoder's layers with random weights, the same every time."""
    from transformers import LlamaConfig, LlamaModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaModel(LlamaConfig(**SIZE, initializer_range=0.1)).eval()
