"""Res-Tuning: its counts, every tuner by hand in the residual form, its start, what it trains with."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.method import Part
from graft.methods.res_tuning import ResTuning
from methods import blocks
from methods.sizes import counts


def test_counts() -> None:
    assert counts("roberta-base", ResTuning()).trainable == 387_312  # of ViT-B/16's shapes, published
    adapter = 2 * 768 * 10 + 10 + 768
    assert counts("roberta-base", ResTuning("none", "adapter", "adapter")).trainable == 2 * 12 * adapter
    assert counts("t5-base", ResTuning()).trainable == 2 * 24 * adapter
    assert counts("gpt2", ResTuning("prompt", "none", tokens=7)).trainable == 12 * 7 * 768
    assert counts("llama2-70b", ResTuning("prefix", "none")).trainable == 80 * 2 * 10 * 8 * 128


def bottleneck(part: Part, x: Tensor) -> Tensor:
    return F.gelu(x @ part.down.T + part.down_bias) @ part.up.T + part.up_bias


@torch.no_grad()
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_adapters_by_hand(name: str) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    parts = cases.grafted(tuned, "res_tuning", block="adapter").parts

    def beside(role: str) -> blocks.Change:
        return lambda index, out, residual, inner: out + bottleneck(parts[blocks.key(name, index, role)], inner)

    blocks.REWRITE[name](base, attention=beside("attention"), ffn=beside("ffn"))
    for index, layer in enumerate(base.bert.encoder.layer if name == "bert" else base.transformer.h):
        part = parts[blocks.key(name, index, "layer")]
        own = layer.forward
        layer.forward = lambda x, *a, own=own, part=part, **k: own(x, *a, **k) + bottleneck(part, x)
    batch = zoo.batch(base)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(zoo.forward(tuned, batch)[real], zoo.forward(base, batch)[real], atol=3e-5, rtol=3e-5)


@torch.no_grad()
@pytest.mark.parametrize("tuner", ["prefix", "prompt"])
def test_keys_by_hand_in_the_residual_form(tuner: str) -> None:
    """y = OP(x) + λ (Attn(Q, P_k, P_v) − OP(x)) in front of the output map, from the base's own attention."""
    base, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    parts = cases.grafted(tuned, "res_tuning", attention=tuner, ffn="none").parts
    batch = zoo.batch(base)
    real = batch["attention_mask"].bool()

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (4, 8)).transpose(-2, -3)

    for index, layer in enumerate(base.bert.encoder.layer):
        own, part = layer.attention.self, parts[f"encoder.{index}.attention"]

        def forward(x: Tensor, *inputs: object, own: torch.nn.Module = own, part: Part = part, **options: object):
            q, k, v = split(own.query(x)), split(own.key(x)), split(own.value(x))
            if tuner == "prompt":
                pk, pv = split(own.key(part.P)), split(own.value(part.P))
            else:
                pk, pv = part.keys.transpose(0, 1), part.values.transpose(0, 1)
            scores = (q @ k.transpose(-1, -2) / math.sqrt(8)).masked_fill(~real[:, None, None], -math.inf)
            ours = q @ pk.transpose(-1, -2) / math.sqrt(8)
            mass, more = scores.exp().sum(-1, keepdim=True), ours.exp().sum(-1, keepdim=True)
            base_out, share = scores.softmax(-1) @ v, more / (more + mass)
            y = base_out + share * (ours.softmax(-1) @ pv - base_out)
            return y.transpose(1, 2).flatten(2), None

        own.forward = forward
    behind = {**batch, "position_ids": torch.arange(3, 12)[None].expand(2, -1)}  # keys take the first positions
    ours, expected = zoo.forward(tuned, batch), zoo.forward(base, behind)
    torch.testing.assert_close(ours[real], expected[real], atol=3e-5, rtol=3e-5)


def test_start_and_what_trains() -> None:
    for tuner, start in (("adapter", "exact"), ("prefix", "elsewhere"), ("prompt", "elsewhere")):
        model = zoo.tiny("gpt2")
        batch = zoo.batch(model)
        base = zoo.forward(model, batch)
        adapter = attach(model, ResTuning(tuner))
        assert adapter.method.start == start
        out = zoo.forward(model, batch)
        assert torch.equal(out, base) == (start == "exact")
        out.square().mean().backward()
        silent = {name.rpartition(".")[2] for name, p in adapter.named_parameters() if not p.grad.any()}
        assert silent == {"down", "down_bias"}
        grouped = [p for group in adapter.method.groups(list(adapter.parts.values())) for p in group["params"]]
        assert {id(p) for p in grouped} == {id(p) for p in adapter.parameters()} and len(grouped) == len(set(grouped))


@torch.no_grad()
def test_prompts_with_a_cache_and_grouped_heads() -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "res_tuning", attention="prompt")
    ids = zoo.batch(model)["input_ids"][:1]
    greedy = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **greedy), model.generate(ids, **greedy, use_cache=False))


def test_refusals() -> None:
    for name in ("bottleneck", "tokens"):
        with pytest.raises(BadInput, match=f"ResTuning: {name} must be at least 1"):
            ResTuning(**{name: 0})
    with pytest.raises(BadInput, match=r"all 'none'\. Try attention='adapter'"):
        ResTuning("none", "none")
    with pytest.raises(BadInput, match=r"attention must be 'adapter' or .*Did you mean 'prefix'"):
        ResTuning("prefx")
