"""LLaMA-Adapter: published counts, one attention by hand, Hugging Face PEFT as judge, its start, refusals."""

import math
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

import cases
import zoo
from graft.attach import attach, probe
from graft.errors import BadInput, NotApplied
from graft.methods.llama_adapter import LLaMAAdapter
from methods.sizes import counts

PUBLISHED = [
    ("llama-7b", LLaMAAdapter(), 1_229_760),  # the paper's 1.2M: 10 tokens in 30 of 32 layers
    ("llama-7b", LLaMAAdapter(gate="hf"), 1_228_830),  # Hugging Face PEFT
    ("llama2-70b", LLaMAAdapter(10, 80), 80 * (10 * 8192 + 64)),  # by query heads, whatever the key heads
    ("gpt2", LLaMAAdapter(10), 12 * (10 * 768 + 12)),  # fewer layers than asked for: all of them
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: LLaMAAdapter, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def heads(x: Tensor, number: int) -> Tensor:
    """(batch, n, number·width) → (batch, number, n, width)."""
    return x.unflatten(-1, (number, -1)).transpose(1, 2)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_two_softmaxes_at_one_attention(name: str) -> None:
    """What enters the first attention's output projection, from q, k, v by hand; a fused and transposed q k v too."""
    model = zoo.tiny(name)
    adapter = cases.grafted(model, "llama_adapter")
    part = adapter.parts["decoder.0.attention" if name == "gpt2" else "encoder.0.attention"]
    paths = {
        "gpt2": ("transformer.h.0.attn", "transformer.h.0.attn.c_proj"),
        "bert": ("bert.encoder.layer.0.attention.self", "bert.encoder.layer.0.attention.output.dense"),
        "t5": ("encoder.block.0.layer.0.SelfAttention", "encoder.block.0.layer.0.SelfAttention.o"),
    }
    inner, out = (model.get_submodule(path) for path in paths[name])
    caught: dict[str, Tensor] = {}
    inner.register_forward_pre_hook(
        lambda m, a, k: caught.update(x=a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    out.register_forward_pre_hook(lambda m, a: caught.update(y=a[0]))
    batch = zoo.batch(model)
    with torch.no_grad():
        model(**batch)
        x, mask = caught["x"], batch["attention_mask"].bool()
        seen, bias, root = mask[:, None, None, :].expand(-1, 1, 9, -1), torch.zeros(()), math.sqrt(8)
        if name == "gpt2":
            seen = seen & torch.ones(9, 9, dtype=torch.bool).tril()
            project = lambda t: [heads(piece, 4) for piece in inner.c_attn(t).chunk(3, -1)]  # noqa: E731
        elif name == "bert":
            project = lambda t: [heads(linear(t), 4) for linear in (inner.query, inner.key, inner.value)]  # noqa: E731
        else:
            project = lambda t: [heads(linear(t), 4) for linear in (inner.q, inner.k, inner.v)]  # noqa: E731
            bias, root = inner.compute_bias(9, 9), 1.0
        q, k, v = project(x)
        _, keys, values = project(part.P[None])
        real = (q @ k.transpose(-1, -2) / root + bias).masked_fill(~seen, -math.inf).softmax(-1)
        prompt = (q @ keys.transpose(-1, -2) / root).softmax(-1) * torch.tanh(part.g)[:, None, None]
        expected = (prompt @ values + real @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(caught["y"][mask], expected[mask], atol=2e-5, rtol=2e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_peft_is_the_judge_of_its_own_gate(name: str) -> None:
    """Rotary positions and shared key heads: PEFT's module on the same numbers, in the upper of two layers."""
    ours, theirs = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(ours, "llama_adapter", gate="hf", layers=1)
    assert list(adapter.parts) == ["decoder.1.attention"]
    config = peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=1, task_type="CAUSAL_LM")
    model: Any = peft.get_peft_model(theirs, config)
    attention, part = theirs.model.layers[1].self_attn, adapter.parts["decoder.1.attention"]
    attention.adaption_prompt.data, attention.adaption_gate.data = part.P.data[None].clone(), part.g.data.clone()
    batch = zoo.batch(ours)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(zoo.forward(ours, batch)[real], zoo.forward(model, batch)[real], atol=1e-5, rtol=1e-5)
    paper = cases.grafted(zoo.tiny(name), "llama_adapter", layers=1).parts["decoder.1.attention"]
    assert paper.g.shape == (4,) and part.g.shape == (1,)


def test_starts_as_the_base_and_moves_only_the_gates_first() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, LLaMAAdapter(200))
    out = zoo.forward(model, batch)
    assert torch.equal(out, base)
    with pytest.raises(NotApplied, match="does not change"):
        probe(model)
    out.square().mean().backward()
    for part in adapter.parts.values():
        assert not part.P.grad.any() and part.g.grad.all()
        assert abs(float(part.P.detach().std()) - 1) < 0.05


def test_top_layers_of_each_stack() -> None:
    assert list(attach(zoo.tiny("t5"), LLaMAAdapter(3, layers=1)).parts) == [
        "encoder.1.attention", "decoder.1.attention",
    ]  # fmt: skip
    crossed = attach(zoo.tiny("t5"), LLaMAAdapter(3, sites="decoder cross: attention"))
    assert list(crossed.parts) == ["decoder.0.cross.attention", "decoder.1.cross.attention"]


def test_refusals() -> None:
    with pytest.raises(BadInput, match="LLaMAAdapter: tokens must be at least 1"):
        LLaMAAdapter(0)
    with pytest.raises(BadInput, match="LLaMAAdapter: layers must be at least 1"):
        LLaMAAdapter(layers=0)
    with pytest.raises(NotApplied, match="attention interface"):
        attach(zoo.tiny("deberta_v2"), LLaMAAdapter(3))
