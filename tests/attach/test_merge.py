"""Merging: sums in either order, and what is refused."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, detach, merge, unmerge, use
from graft.errors import BadInput, Refused
from graft.method import Method
from graft.methods.bitfit import BitFit
from graft.methods.dora import DoRA
from graft.methods.houlsby import Houlsby
from graft.methods.ia3 import IA3
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.top_layers import TopLayers

Q = "q k v"
SUMS = {
    "dora+lora": DoRA(rank=2, sites=Q) + LoRA(rank=3, sites=Q),
    "lora+dora": LoRA(rank=3, sites=Q) + DoRA(rank=2, sites=Q),
    "lora+ia3": LoRA(rank=2, sites="q k v down") + IA3(),
    "ia3+lora": IA3() + LoRA(rank=2, sites="q k v down"),
    "dora+ia3": DoRA(rank=2, sites="k down") + IA3(),
    "bitfit+ia3": BitFit() + IA3(),
    "ia3+bitfit": IA3() + BitFit(),
    "lora+lora": LoRA(rank=2) + LoRA(rank=3, rslora=True),
    "lora+bitfit+ia3": LoRA(rank=2, sites="all-linear") + BitFit() + IA3(),
}


@pytest.mark.parametrize("name", ["gpt2", "bert", "gpt_neox"])
@pytest.mark.parametrize("which", SUMS)
def test_sums_merge_to_what_they_are_attached(name: str, which: str) -> None:
    model = zoo.tiny(name)
    batch = zoo.batch(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cases.move(attach(model, SUMS[which]))
    attached = zoo.forward(model, batch)
    merge(model)
    torch.testing.assert_close(zoo.forward(model, batch), attached, atol=1e-4, rtol=1e-4)
    unmerge(model)
    torch.testing.assert_close(zoo.forward(model, batch), attached, atol=0, rtol=0)
    detach(model)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_order_of_a_sum_is_left_to_right() -> None:
    """(W + BA) scaled is not W scaled + BA."""
    model = zoo.tiny("bert")
    batch = zoo.batch(model)
    outs = []
    for method in (LoRA(rank=2, sites="k") + IA3(sites="k"), IA3(sites="k") + LoRA(rank=2, sites="k")):
        adapter = attach(model, method)
        for part in adapter.parts.values():
            for name, parameter in part.named_parameters():
                parameter.data.fill_(2.0 if name == "l" else 0.3)
        outs.append(zoo.forward(model, batch))
        if method.methods()[0] == LoRA(rank=2, sites="k"):
            merge(model)
            key = model.bert.encoder.layer[0].attention.self.key.weight
            plain = zoo.tiny("bert").bert.encoder.layer[0].attention.self.key.weight
            torch.testing.assert_close(key, 2.0 * (plain + 8.0 * 2 * 0.09), atol=1e-5, rtol=1e-5)
            unmerge(model)
        detach(model)
    assert (outs[0] - outs[1]).abs().max() > 1e-3


def test_half_precision_weights_are_rounded_once_and_restored() -> None:
    model = zoo.tiny("llama").to(torch.bfloat16)
    before = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    adapter = cases.grafted(model, "lora", rank=2)
    part = adapter.parts["decoder.0.q"]
    merge(model)
    exact = (before.float() + part.scale * part.B.detach() @ part.A.detach()).to(torch.bfloat16)
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight, exact)
    unmerge(model)
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight, before)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Houlsby(3), "Series is no change of parameters"),
        (PrefixTuning(2), "Prefix is no change of parameters"),
        (LoRA(rank=2) + Houlsby(3), "Series is no change of parameters"),
        (LoRA(rank=2, sites="embed"), "shared with another module"),
        (BitFit(), r"has no bias to write to.*\(and \d+ more\)"),
    ],
)
def test_refused_and_untouched(method: Method, reason: str) -> None:
    model = zoo.tiny("llama" if "shared" not in reason else "gpt2")
    if "shared" in reason:
        assert model.lm_head.weight is model.transformer.wte.weight
    batch = zoo.batch(model)
    cases.move(attach(model, method))
    attached = zoo.forward(model, batch)
    with pytest.raises(Refused, match=rf"{reason}.*Serve it attached\."):
        merge(model)
    assert torch.equal(zoo.forward(model, batch), attached)


def test_refused_beside_another_and_twice() -> None:
    model = zoo.tiny("llama")
    attach(model, LoRA(rank=2), "a")
    attach(model, LoRA(rank=2), "b")
    with pytest.raises(Refused, match=r"other adapters are attached \(b\): detach them first"):
        merge(model, "a")
    with pytest.raises(Refused, match="'a' is not merged"):
        unmerge(model, "a")
    detach(model, "b")
    merge(model, "a")
    with pytest.raises(Refused, match="merged already"):
        merge(model, "a")
    with pytest.raises(Refused, match=r"Unmerge it before attaching"):
        attach(model, LoRA(rank=2), "b")
    with pytest.raises(Refused, match=r"Call graft.unmerge"):
        detach(model, "a")
    with pytest.raises(Refused, match="Unmerge it to use anything else"), use(model, None):
        pass
    unmerge(model, "a")
    detach(model, "a")
    with pytest.raises(BadInput, match="nothing is attached"):
        merge(model, "a")


def test_in_place_is_in_the_weights_already() -> None:
    model = zoo.tiny("llama")
    attach(model, TopLayers(1))
    with pytest.raises(Refused, match="in the weights from the start"):
        merge(model)


def test_a_change_of_weights_is_inside_a_bottleneck_in_either_order() -> None:
    """`down` is where the feed-forward network ends: its weights change first, then the adapter sees what it gives."""
    outs = []
    for method in (
        Houlsby(3, sites="ffn") + LoRA(rank=2, sites="down"),
        LoRA(rank=2, sites="down") + Houlsby(3, sites="ffn"),
    ):
        model = zoo.tiny("llama")
        for part in attach(model, method).parts.values():
            for name, parameter in part.named_parameters():
                torch.manual_seed(parameter.shape.numel() + len(name))
                parameter.data = 0.3 * torch.randn_like(parameter)
        outs.append(zoo.forward(model, zoo.batch(model)))
    torch.testing.assert_close(outs[0], outs[1], atol=1e-5, rtol=1e-5)


def test_a_fused_projection_and_a_share_of_it_in_one_sum() -> None:
    """DoRA on all of c_attn after LoRA on its q: attached, it must see what LoRA made of q, as it does merged."""
    model = zoo.tiny("gpt2")
    batch = zoo.batch(model)
    cases.move(attach(model, LoRA(rank=2, sites="q") + DoRA(rank=2, sites="*.attn.c_attn")))
    attached = zoo.forward(model, batch)
    merge(model)
    torch.testing.assert_close(zoo.forward(model, batch), attached, atol=1e-4, rtol=1e-4)
