"""Every method at a size that fits tiny models: what the contract suite runs on. A new method file is in it at once."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn

from graft import catalogue
from graft.attach import Adapter, attach
from graft.method import Method, find

SMALL = {"rank": 3, "bottleneck": 4, "tokens": 3, "hidden": 6, "k": 1, "reduction": 4, "frequencies": 24,
         "density": 0.25}  # fmt: skip
# What one method needs beside its small sizes.
OWN = {
    "hra": {"rank": 4},
    "adalora": {"init_rank": 4, "target_rank": 3},
    "intrinsic_subspace": {"dimension": 64},
    "adapter_drop": {"drop": 1},
    "offsite": {"ends": 1},
    "plug_in": {"host": "houlsby(bottleneck=4, std=0.15, train_layernorm=False)", "train_bridge": True},
    "parallel": {"hosts": ("lora(rank=3)", "lora(rank=2)"), "weights": (0.7, -0.4)},
    "adapter_fusion": {"hosts": tuple(f"houlsby(bottleneck={r}, std=0.15, train_layernorm=False)" for r in (8, 4))},
}
SUMS = {"lora+prefix_tuning": ("lora", "prefix_tuning"), "prompt_tuning+dora": ("prompt_tuning", "dora")}
NAMES = (*catalogue.methods(), *SUMS)
FEW = ("llama", "bert", "t5")  # the models a method runs on by default; the slow suite has all of text


def method(name: str, **settings: Any) -> Method:
    """The method called `name` (or a sum of two), with its sizes shrunk."""
    if name in SUMS:
        left, right = SUMS[name]
        return method(left) + method(right)
    kind = find(name)
    small = {f.name: SMALL[f.name] for f in fields(kind) if f.name in SMALL}
    return kind(**{**small, **OWN.get(name, {}), **settings})


def grafted(model: nn.Module, name: str, adapter: str = "default", **settings: Any) -> Adapter:
    """`model` with the method attached and every one of its tensors moved away from its start."""
    made = attach(model, method(name, **settings), adapter)
    move(made)
    return made


def move(adapter: Adapter, seed: int = 1, by: float = 0.2) -> None:
    """Add noise to every trained tensor, as if it had been trained."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=draws))


def one(name: str) -> str:
    """The model of a method where one says what there is to say: with both kinds of stacks, if it suits."""
    return next(model for model in reversed(FEW) if suits(name, model))


def suits(name: str, model: str) -> bool:
    """Whether a method can be put on a model at all."""
    unreachable = model in UNINTERFACED and any(word in name for word in KEYS)
    fits = (model not in where or name not in which for where, which in MISFITS)
    return not unreachable and all(fits)


# Methods that add keys and values, or tokens in front of layers.
KEYS = ("prefix", "mam", "hypertuning", "llama_adapter", "p_tuning_v2", "embedding_prompt", "unipelt")
# Methods that act on tokens at an inner linear map, and cannot where experts are fused.
TOKENWISE = ("adapter_bias",)
FUSED = ("mixtral", "qwen3_moe", "gpt_oss")
# Methods that tell blocks apart, and cannot where one module runs as several.
BLOCKWISE = ("adapter_drop", "offsite")
ROUND = ("albert",)
# Methods that make tokens of the whole row, and cannot where a token must not see those behind it.
ROWWISE = ("idpt", "upl")
DECODERS = (
    "gpt2", "gpt_neox", "opt", "bloom", "falcon", "falcon_multi_query", "falcon_multi_head", "llama", "mistral",
    "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "mixtral", "qwen3_moe", "gpt_oss",
)  # fmt: skip
MISFITS = ((FUSED, TOKENWISE), (ROUND, BLOCKWISE), (DECODERS, ROWWISE))
# Methods that run layers again in backward by themselves, and refuse checkpointing, which is to do so too.
AGAIN = ("meft",)
# Methods that add virtual tokens.
TOKENS = ("prompt", "p_tuning")
# Their attention does not go through transformers' attention interface, so virtual keys are refused there.
UNINTERFACED = ("bloom", "falcon", "falcon_multi_query", "falcon_multi_head", "deberta_v2")
# Somewhere inside, rows of a batch cannot be told apart; a method that acts there refuses mixed batches.
ROWLESS = ("deberta_v2", "mixtral", "qwen3_moe", "gpt_oss")


def caches(name: str, model: str) -> bool:
    """Whether a method can be used with a cache on a model: virtual tokens need the attention interface."""
    return not (model in UNINTERFACED and any(word in name for word in TOKENS))


def some(values: Iterable[Any], now: int = 1) -> list[Any]:
    """`values` for a parametrized test: the first `now` by default, and all of them in the slow suite."""
    return [
        case if number < now else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for number, case in enumerate(values)
    ]
