"""Sums of two methods of one kind: what each keeps, in the cache or in one forward, is apart from the other's."""

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache

import cases
import zoo
from graft.attach import Adapter, attach
from graft.composition import Stack


def twice(model: torch.nn.Module, kind: str, how: str) -> Adapter:
    """Two of one kind as one adapter: a sum, or a stack of two that are on the model."""
    if how == "sum":
        adapter = attach(model, cases.method(kind) + cases.method(kind))
        cases.move(adapter)
        return adapter
    for seed, name in enumerate(("a", "b")):
        cases.move(attach(model, cases.method(kind), name), seed=seed)
    return attach(model, Stack(("a", "b")))


@torch.no_grad()
@pytest.mark.parametrize("how", ["sum", "stack"])
@pytest.mark.parametrize("name", ["llama", "t5"])
@pytest.mark.parametrize("kind", ["tiny_attention", "conv_adapter", "unipelt", "side_tuning", "ladder_side"])
def test_token_by_token_is_the_whole_row(kind: str, name: str, how: str) -> None:
    model = zoo.tiny(name)
    twice(model, kind, how)
    batch, ids = zoo.batch(model), torch.randint(5, 96, (2, 8))
    cache: DynamicCache | EncoderDecoderCache = DynamicCache(config=model.config)
    given = {}
    if name == "t5":
        cache = EncoderDecoderCache(cache, DynamicCache(config=model.config))
        given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    key = "decoder_input_ids" if name == "t5" else "input_ids"
    whole = model(**given, **{key: ids}).logits
    steps = [model(**given, **{key: ids[:, t : t + 1]}, past_key_values=cache, use_cache=True).logits for t in range(8)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize("name", ["bert", "t5"])
@pytest.mark.parametrize("kind", ["side_tuning", "ladder_side", "weighted_sum", "res_tuning_bypass", "unipelt"])
def test_both_learn(kind: str, name: str) -> None:
    if not cases.suits(kind, name):
        return
    model = zoo.tiny(name)
    adapter = twice(model, kind, "sum")
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    idle = [n for n, p in adapter.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    alone = zoo.tiny(name)
    once = cases.grafted(alone, kind)
    zoo.forward(alone, zoo.batch(alone)).square().mean().backward()
    never = [n for n, p in once.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert len(idle) == 2 * len(never), idle
