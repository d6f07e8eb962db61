"""(IA)³: published counts, scaled weights and biases by hand, the axis of transposed matrices, merging."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge, unmerge
from graft.methods.ia3 import IA3
from methods.sizes import counts

PUBLISHED = [
    ("roberta-base", IA3(), 55_296),  # AdapterHub; with the head 647,426
    ("roberta-large", IA3(), 147_456),  # with the head 1,199,106
    ("roberta-base", IA3(variant="hf"), 656_642 - 592_130),  # Hugging Face PEFT, 0.66M with the head
    ("roberta-large", IA3(variant="hf"), 1_223_682 - 1_051_650),  # 1.22M with the head
    ("gpt2", IA3(), 55_296),
    ("gpt2", IA3(sites="q k v down"), 64_512),  # Hugging Face PEFT: its one vector over c_attn scales queries too
    ("t5-base", IA3(), 129_024),
    ("t0-3b", IA3(), 540_672),  # T-Few
    ("t0-11b", IA3(), 1_081_344),  # T-Few, "0.01 %"
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: IA3, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def test_table_row_with_the_head() -> None:
    assert (found := counts("roberta-base", IA3())).trainable + found.head == 647_426
    assert (found := counts("roberta-large", IA3())).trainable + found.head == 1_199_106


def test_weights_by_hand_with_biases() -> None:
    """Keys and values: rows of W and the bias. The feed-forward network: columns of W₂, the bias as it was."""
    base, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = cases.grafted(tuned, "ia3")
    for index, layer in enumerate(base.bert.encoder.layer):
        scales = {role: adapter.parts[f"encoder.{index}.{role}"].l.detach() for role in ("k", "v", "down")}
        for role, linear in (("k", layer.attention.self.key), ("v", layer.attention.self.value)):
            linear.weight.data = torch.diag(scales[role]) @ linear.weight.data
            linear.bias.data = scales[role] * linear.bias.data
        layer.output.dense.weight.data = layer.output.dense.weight.data @ torch.diag(scales["down"])
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-5, rtol=1e-5)


def test_weights_by_hand_transposed_and_fused() -> None:
    base, tuned = zoo.tiny("gpt2"), zoo.tiny("gpt2")
    adapter = cases.grafted(tuned, "ia3")
    for index, block in enumerate(base.transformer.h):
        scale = torch.ones(96)
        scale[32:64] = adapter.parts[f"decoder.{index}.k"].l.detach()
        scale[64:] = adapter.parts[f"decoder.{index}.v"].l.detach()
        block.attn.c_attn.weight.data *= scale  # (in, out): outputs are columns
        block.attn.c_attn.bias.data *= scale
        block.mlp.c_proj.weight.data *= adapter.parts[f"decoder.{index}.down"].l.detach()[:, None]
    batch = zoo.batch(base)
    expected = zoo.forward(base, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=1e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=1e-5, rtol=1e-5)


def test_gated_network_is_scaled_before_its_last_projection() -> None:
    base, tuned = zoo.tiny("flan_t5"), zoo.tiny("flan_t5")
    adapter = cases.grafted(tuned, "ia3", sites="down")
    for stack in ("encoder", "decoder"):
        for index, block in enumerate(base.get_submodule(stack).block):
            linear = block.layer[-1].DenseReluDense.wi_1
            linear.weight.data *= adapter.parts[f"{stack}.{index}.down"].l.detach()[:, None]
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-4, rtol=1e-4)


def test_cross_attention_is_scaled_too() -> None:
    model = zoo.tiny("t5")
    adapter = attach(model, IA3())
    assert adapter.coverage == {"k": 6, "v": 6, "down": 4}
    assert {"decoder.0.cross.k", "decoder.1.cross.v"} <= set(adapter.parts)


def test_starts_as_ones() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, IA3())
    assert all(bool((p == 1).all()) for p in adapter.parameters())
    out = zoo.forward(model, batch)
    torch.testing.assert_close(out, base)
    out.square().mean().backward()
    assert all(p.grad.any() for p in adapter.parameters())


def test_unmerging_is_exact_where_division_is_not() -> None:
    """A vector with zeros: dividing by it again could never restore the weights."""
    model = zoo.tiny("bert")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    adapter = attach(model, IA3())
    for parameter in adapter.parameters():
        parameter.data.zero_()
    merge(model)
    assert not model.bert.encoder.layer[0].attention.self.key.weight.any()
    unmerge(model)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
