"""Tiny-attention adapters: published counts, the block by hand with every mask, its cache, starts, refusals."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

import cases
import zoo
from graft.attach import attach, use
from graft.errors import BadInput
from graft.methods.tiny_attention import TinyAttention
from methods import blocks
from methods.sizes import counts

BARE = {"bias": False, "layernorm": False}
PUBLISHED = [
    ("roberta-large", TinyAttention(), 172_104),  # the paper's 0.05 %
    ("roberta-large", TinyAttention(**BARE), 98_304),
    ("roberta-base", TinyAttention(**BARE), 36_864),
    ("roberta-base", TinyAttention(4, 2, **BARE), 8 * 36_864),
    ("t5-base", TinyAttention(), 24 * (7 * 768 + 3)),  # self-attention alone
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: TinyAttention, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def by_hand(part: Any, z: Tensor, heads: int, seen: Tensor) -> Tensor:
    """Head by head, by PyTorch's own attention. `seen` (batch, 1, query, key)."""
    if part.gain is not None:
        z = F.layer_norm(z, z.shape[-1:], part.gain, part.shift)
    given = []
    for name in "qkv":
        out = z @ getattr(part, f"W_{name}").T
        given.append(out if getattr(part, f"b_{name}") is None else out + getattr(part, f"b_{name}"))
    outs = [
        F.scaled_dot_product_attention(*(t[:, None] for t in parts), attn_mask=seen)[:, 0]
        for parts in zip(*(t.chunk(heads, -1) for t in given), strict=True)
    ]
    out = torch.cat(outs, -1) @ part.W_o.T
    return out if part.b_o is None else out + part.b_o


@pytest.mark.parametrize("form", ["series", "parallel"])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", blocks.REWRITE)
def test_block_by_hand(name: str, plain: bool, form: str) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "tiny_attention", heads=2, width=3, form=form, **(BARE if plain else {}))
    batch = zoo.batch(base)

    def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
        causal = name in ("gpt2", "llama") or (name == "t5" and index >= 2)
        length = out.shape[1]
        seen = torch.ones(2, 1, length, length, dtype=torch.bool)
        if not (name == "t5" and index >= 2):
            seen = batch["attention_mask"].bool()[:, None, None] | torch.eye(length, dtype=torch.bool)
        if causal:
            seen = seen & torch.ones(length, length, dtype=torch.bool).tril()
        z = out if form == "series" else inner
        return out + by_hand(adapter.parts[blocks.key(name, index, "attention")], z, 2, seen)

    blocks.REWRITE[name](base, attention=change)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["modernbert", "mistral"])
def test_it_sees_through_the_windows_of_its_host(name: str) -> None:
    local = {"layer_types": ["sliding_attention"] * 3} if name == "modernbert" else {}
    model = zoo.tiny(name, "base", num_hidden_layers=3, **local)
    ids = torch.randint(5, zoo.VOCABULARY, (1, 24))
    other = ids.clone()
    other[0, 12] = 5 + (int(ids[0, 12]) - 4) % (zoo.VOCABULARY - 5)

    def reached() -> list[int]:
        first = [model(input_ids=each, output_hidden_states=True).hidden_states[1] for each in (ids, other)]
        return ((first[0] - first[1]).abs().amax(-1) > 1e-6)[0].nonzero().flatten().tolist()

    before = reached()
    assert 12 in before and len(before) < 12  # as far as the window goes, to both sides in an encoder
    cases.grafted(model, "tiny_attention", form="parallel", sites="self: attention @ 0")
    assert reached() == before


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_its_keys_and_values_are_further_layers_of_the_cache(name: str) -> None:
    model = zoo.tiny(name)
    cases.grafted(model, "tiny_attention", heads=2)
    batch = {key: value[:1] for key, value in zoo.batch(model).items()}
    decoding = "decoder_input_ids" if name == "t5" else "input_ids"
    whole = model(**batch).logits
    own = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache = EncoderDecoderCache(own, DynamicCache(config=model.config)) if name == "t5" else own
    steps = []
    for t in range(batch[decoding].shape[1]):
        inputs = {**batch, decoding: batch[decoding][:, t : t + 1]}
        if name == "llama":
            inputs["attention_mask"] = batch["attention_mask"][:, : t + 1]
        out = model(**inputs, past_key_values=cache, use_cache=True)
        steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=2e-5, rtol=2e-5)
    assert len(own.layers) == 4 and own.layers[-1].keys.shape == (1, 2, whole.shape[1], 1)


def test_starts_as_the_base_and_moves_only_the_output_first() -> None:
    model = zoo.tiny("bert")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, TinyAttention())
    out = zoo.forward(model, batch)
    assert torch.equal(out, base)
    out.square().mean().backward()
    for part in adapter.parts.values():
        moving = {name for name, p in part.named_parameters() if p.grad is not None and p.grad.any()}
        assert moving == {"W_o", "b_o"}


def test_refusals() -> None:
    with pytest.raises(BadInput, match="TinyAttention: heads must be at least 1"):
        TinyAttention(0)
    with pytest.raises(BadInput, match="TinyAttention: width must be at least 1"):
        TinyAttention(width=0)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("other", ["prompt_tuning", "embedding_prompt", "prefix_tuning"])
def test_sees_no_virtual_tokens_with_a_cache_or_without(other: str, left: bool) -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, cases.method(other) + cases.method("tiny_attention")))
    cases.move(attach(model, cases.method("tiny_attention"), "plain"), seed=3)
    batch = zoo.batch(model, left_padding=left)
    real = batch["attention_mask"].bool()
    for rows in ("default", ["default", "plain"], ["plain", "default"]):
        with use(model, rows):
            cached, whole = (model(**batch, use_cache=on).logits[real] for on in (True, False))
        torch.testing.assert_close(cached, whole, atol=2e-5, rtol=2e-5)
