"""BitFit: published counts, biases by hand, biases created where a model has none, merging and its refusal."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import Refused
from graft.methods.bitfit import BitFit
from methods.sizes import counts

PUBLISHED = [
    ("roberta-base", 694_274 - 592_130, 592_130),  # 0.69M with the head
    ("roberta-large", 1_323_010 - 1_051_650, 1_051_650),  # 1.32M with the head
    ("bert-base", 102_914 - 768 - 2, 2 * 768 + 2),  # 102,914 are all biases: the pooler's and the head's too
    ("bert-large", 272_386 - 1024 - 2, 2 * 1024 + 2),
    ("gpt3", 96 * 11 * 12_288 + 12_288, 0),  # 12.99M; the 14.2M in print counts 12 widths a block, not 11
]


@pytest.mark.parametrize(("model", "trainable", "head"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, trainable: int, head: int) -> None:
    found = counts(model, BitFit())
    assert (found.trainable, found.head, found.changed, found.rank) == (trainable, head, trainable, 0)


def test_every_bias_of_the_stack_and_nothing_else() -> None:
    model = zoo.tiny("bert")
    biases = {name: p.numel() for name, p in model.named_parameters() if name.endswith("bias") and ".encoder." in name}
    biases["bert.embeddings.LayerNorm.bias"] = 32
    adapter = attach(model, BitFit())
    assert adapter.counts.trainable == sum(biases.values())
    assert {f"{placed.site.path}.bias" for placed in adapter.placed} == set(biases)
    assert adapter.remarks == ()


def test_biases_by_hand_and_merged() -> None:
    base, tuned = zoo.tiny("gpt2"), zoo.tiny("gpt2")
    adapter = cases.grafted(tuned, "bitfit")
    for index, block in enumerate(base.transformer.h):
        parts = {
            role: adapter.parts[f"decoder.{index}.{role}"].bias.detach() for role in ("q", "k", "v", "o", "up", "down")
        }
        block.attn.c_attn.bias.data = torch.cat((parts["q"], parts["k"], parts["v"]))
        block.attn.c_proj.bias.data, block.mlp.c_fc.bias.data = parts["o"], parts["up"]
        block.mlp.c_proj.bias.data = parts["down"]
        block.ln_1.bias.data = adapter.parts[f"decoder.{index}.norm.ln_1"].bias.detach()
        block.ln_2.bias.data = adapter.parts[f"decoder.{index}.norm.ln_2"].bias.detach()
    (final,) = (p.part for p in adapter.placed if p.site.path == "transformer.ln_f")
    base.transformer.ln_f.bias.data = final.bias.detach()
    batch = zoo.batch(base)
    expected = zoo.forward(base, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=1e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_name", ["llama", "t5"])
def test_creates_zero_biases_and_says_so(model_name: str) -> None:
    model = zoo.tiny(model_name)
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, BitFit())
    torch.testing.assert_close(zoo.forward(model, batch), base, atol=1e-5, rtol=1e-5)
    assert not any(p.any() for p in adapter.parameters())
    assert "norm" not in adapter.coverage  # an RMS norm has no place for a bias
    (remark,) = adapter.remarks
    assert f"created zero biases at {len(adapter.parts)} sites" in remark
    with pytest.raises(Refused, match="has no bias to write to"):
        merge(model)


def test_created_biases_by_hand() -> None:
    base, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "bitfit")
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
             "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}  # fmt: skip
    for index, layer in enumerate(base.model.layers):
        for role, path in names.items():
            layer.get_submodule(path).bias = torch.nn.Parameter(adapter.parts[f"decoder.{index}.{role}"].bias.detach())
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-5, rtol=1e-5)


def test_models_with_some_biases_keep_them() -> None:
    """Qwen2 has biases at q, k and v alone: those start as they are, the others as zeros."""
    model = zoo.tiny("qwen2")
    adapter = attach(model, BitFit())
    layer = model.model.layers[0].self_attn
    assert torch.equal(adapter.parts["decoder.0.q"].bias, layer.q_proj.bias)
    assert not adapter.parts["decoder.0.o"].bias.any()
    assert "created zero biases at 8 sites" in adapter.remarks[0]
