"""Attaching and detaching: names, errors that leave no trace, any order of several adapters, missing sites."""

from dataclasses import dataclass

import pytest
import torch
from accelerate import cpu_offload
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cases
import zoo
from graft.anatomy import Site
from graft.attach import attach, detach, grafted, probe, use
from graft.errors import BadInput, NotApplied, Refused
from graft.method import Method, Part
from graft.methods.bitfit import BitFit
from graft.methods.houlsby import Houlsby
from graft.methods.ia3 import IA3
from graft.methods.lora import LoRA
from graft.methods.pfeiffer import Pfeiffer
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.top_layers import TopLayers

METHODS = {
    "lora": LoRA(rank=2), "sites": LoRA(rank=2, sites="all-linear"), "houlsby": Houlsby(3), "ia3": IA3(),
    "bitfit": BitFit(), "prefix": PrefixTuning(2), "network": PrefixTuning(2, reparameterize=True, hidden=4),
    "prompt": PromptTuning(3),
}  # fmt: skip


def trace(model: nn.Module) -> tuple:
    """All that attaching may touch."""
    return (
        {name: p.requires_grad for name, p in model.named_parameters()},
        [
            (name, len(m._forward_hooks), len(m._forward_pre_hooks), sorted(m._modules))
            for name, m in model.named_modules()
        ],
        list(model.state_dict()),
        model.config._attn_implementation,
        sorted(key for key in model.__dict__ if not key.startswith("_forward")),
    )


@pytest.mark.parametrize(
    "name", ["", "A", "a/b", "../a", "a\\b", ".a", "-a", "a b", "a" * 65, "é", "a\n", "a:b", "a%b"]
)
def test_impossible_names(name: str) -> None:
    model = zoo.tiny("llama")
    before = trace(model)
    with pytest.raises(BadInput, match="adapter name"):
        attach(model, LoRA(), name)
    assert trace(model) == before and grafted(model) is None


def test_names_with_dots_are_kept_apart() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    for seed, name in enumerate(("v1.2", "v1", "v1_2")):
        cases.move(attach(model, LoRA(rank=2), name), seed=seed)
    with use(model, "v1"):
        expected = zoo.forward(model, batch)
    detach(model, "v1.2")
    detach(model, "v1_2")
    torch.testing.assert_close(zoo.forward(model, batch), expected)
    assert list(grafted(model).adapters) == ["v1"]


def test_a_name_is_taken_once() -> None:
    model = zoo.tiny("llama")
    attach(model, LoRA(rank=2), "a")
    before = trace(model)
    with pytest.raises(BadInput, match="there is an adapter 'a' already"):
        attach(model, IA3(), "a")
    assert trace(model) == before
    with pytest.raises(BadInput, match="no adapter 'b'; attached are: a"):
        detach(model, "b")


@pytest.mark.parametrize(
    ("method", "error"),
    [
        (LoRA(rank=17), BadInput),
        (TopLayers(9), BadInput),
        (TopLayers(0), NotApplied),
        (LoRA(sites="kitchen"), BadInput),
        (PromptTuning(init="text", text="words"), BadInput),
        (LoRA(rank=2) + TopLayers(1), Refused),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_an_error_leaves_the_model_as_it_was(method: object, error: type[Exception], beside: bool) -> None:
    model = zoo.tiny("llama")
    model.lm_head.requires_grad_(False)
    batch = zoo.batch(model)
    if beside:
        cases.move(attach(model, LoRA(rank=2), "first"))
        error = Refused if isinstance(method, TopLayers) else error
    before, out = trace(model), zoo.forward(model, batch)
    with pytest.raises(error):
        attach(model, method, "second")
    assert trace(model) == before
    assert torch.equal(zoo.forward(model, batch), out)
    assert (grafted(model) is None) != beside


def test_unsupported_attention_is_refused_without_a_trace() -> None:
    model = zoo.tiny("llama")
    model.config._attn_implementation = "flex_attention"
    before = trace(model)
    with pytest.raises(Refused, match="attn_implementation='sdpa' or 'eager'"):
        attach(model, PrefixTuning(2))
    assert trace(model) == before and grafted(model) is None


def test_sites_missing_in_a_layer_are_not_passed_over() -> None:
    """Qwen2-MoE-like: a role that some layers lack. Here one layer's projection is called something else."""
    model = zoo.tiny("llama")
    attention = model.model.layers[1].self_attn
    attention.add_module("renamed", attention.q_proj)
    del attention.q_proj
    with pytest.raises(NotApplied, match=r"asked 'q' in layers 0-1 of decoder; missing in 1"):
        attach(model, LoRA(rank=2))
    adapter = attach(model, LoRA(rank=2, sites="q v @ 0"))
    assert adapter.coverage == {"q": 1, "v": 1}


@settings(max_examples=12)
@given(st.data())
def test_any_order_of_attaching_and_detaching_leaves_no_trace(data: st.DataObject) -> None:
    """Adapters come and go; each says the same whenever it is used; in the end nothing is left."""
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base, before = zoo.forward(model, batch), trace(model)
    alone: dict[str, torch.Tensor] = {}
    on: list[str] = []
    for _ in range(data.draw(st.integers(2, 7))):
        free = [name for name in METHODS if name not in on]
        if free and (not on or data.draw(st.booleans())):
            name = data.draw(st.sampled_from(free))
            torch.manual_seed(3)
            cases.move(attach(model, METHODS[name], name), seed=len(name))
            on.append(name)
        else:
            name = data.draw(st.sampled_from(on))
            detach(model, name)
            on.remove(name)
        for name in on:
            with use(model, name):
                out = zoo.forward(model, batch)
            torch.testing.assert_close(out, alone.setdefault(name, out), atol=1e-5, rtol=1e-5)
        if on:
            with use(model, None):
                torch.testing.assert_close(zoo.forward(model, batch), base, atol=1e-5, rtol=1e-5)
    for name in on:
        detach(model, name)
    assert torch.equal(zoo.forward(model, batch), base)
    assert trace(model) == before and grafted(model) is None


def test_detaching_the_one_in_use_falls_back_to_the_last_left() -> None:
    model = zoo.tiny("llama")
    for name in ("a", "b", "c"):
        attach(model, LoRA(rank=2), name)
    detach(model, "c")
    assert grafted(model).names == "b"
    with use(model, "a"):
        pass
    detach(model, "a")
    assert grafted(model).names == "b"


def test_heads_belong_to_their_adapters() -> None:
    """Two adapters on one classifier each train a head of their own; the model's stays."""
    model = zoo.tiny("roberta", "classification")
    batch = zoo.batch(model)
    head = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("classifier")}
    outs = {}
    for seed, name in enumerate(("a", "b")):
        cases.move(attach(model, LoRA(rank=2), name), seed=seed)
        outs[name] = zoo.forward(model, batch)
    assert not torch.allclose(outs["a"], outs["b"])
    with use(model, ["b", "a"]):
        mixed = zoo.forward(model, batch)
    torch.testing.assert_close(mixed, torch.stack((outs["b"][0], outs["a"][1])), atol=1e-5, rtol=1e-5)
    detach(model, "a"), detach(model, "b")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in head.items())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((None, LoRA()), "got None and a LoRA"), ((LoRA(), LoRA()), "got a LoRA and a LoRA"),
        (("model", "lora"), "got a LlamaForCausalLM and 'lora'"), (("model", LoRA), "and <class"),
        (("model", LoRA(), None), "adapter name None"),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_are_refused(arguments: tuple, match: str) -> None:
    model = zoo.tiny("llama")
    before = trace(model)
    with pytest.raises(BadInput, match=match):
        attach(*(model if each == "model" else each for each in arguments))
    with pytest.raises(BadInput, match="head is True, False or 'auto', got 'yes'"):
        attach(model, LoRA(), head="yes")
    assert trace(model) == before


def test_parts_are_in_the_mode_of_the_model() -> None:
    """Dropout is off in a model that is evaluated, without another call of eval()."""
    model = zoo.tiny("llama").eval()
    cases.move(attach(model, LoRA(rank=2, dropout=0.9)))
    batch = zoo.batch(model)
    assert torch.equal(zoo.forward(model, batch), zoo.forward(model, batch))
    detach(model)
    adapter = attach(model.train(), LoRA(rank=2, dropout=0.9))
    assert all(part.training for part in adapter.parts.values())


def test_a_low_rank_update_needs_a_matrix() -> None:
    model = zoo.tiny("llama")
    before = trace(model)
    with pytest.raises(Refused, match="its weight is a vector"):
        attach(model, LoRA(rank=2, sites="norm"))
    assert trace(model) == before


def test_a_tensor_that_fused_experts_never_read_is_refused() -> None:
    with pytest.raises(Refused, match="fused experts have no bias"):
        attach(zoo.tiny("mixtral"), _Shift(sites="gate up down"))


class _Added(Part):
    def params(self, site: Site) -> dict[str, torch.Tensor]:
        return {"bias": torch.zeros(site.outputs)}


@dataclass(frozen=True)
class _Shift(Method):
    sites: str = ""

    def build(self, site: Site) -> Part:
        return _Added()


def test_a_trained_head_does_not_hide_parts_that_did_not_move() -> None:
    model = zoo.tiny("bert", "classification")
    adapter = attach(model, LoRA(rank=2))
    with torch.no_grad():
        for placed in adapter.placed:
            if placed.head:
                for parameter in placed.part.parameters():
                    parameter.add_(1.0)
    with pytest.raises(NotApplied, match="does not change the output"):
        probe(model)
    cases.move(adapter)
    assert probe(model) > 0


def test_a_model_whose_weights_are_offloaded_is_refused_before_and_after() -> None:
    model = zoo.tiny("llama")
    cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(Refused, match="modules are offloaded"):
        attach(model, LoRA(rank=2))
    assert grafted(model) is None
    model = zoo.tiny("llama")
    attach(model, LoRA(rank=2))
    cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(NotApplied, match=r"'default' was offloaded .* 4 of its parts \(decoder.0.q"):
        model(**zoo.batch(model))
    with use(model, None):
        model(**zoo.batch(model))


@pytest.mark.parametrize("method", [LoRA(rank=2), PrefixTuning(2), TopLayers(1)])
def test_a_model_that_moves_afterwards_takes_the_adapter_along(method: Method) -> None:
    """Another number format stands for another device: whatever is kept beside the model must follow it too."""
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    with torch.no_grad():
        base = model(**batch).logits
        adapter = attach(model, method)
        cases.move(adapter)
        ours = model(**batch).logits
        model.double()
        torch.testing.assert_close(model(**batch).logits.float(), ours)
        with use(model, None):
            torch.testing.assert_close(model(**batch).logits, base.double(), rtol=1e-4, atol=1e-5)
            kinds = {p.dtype for name, p in model.named_parameters() if ".graft." not in name}
            assert kinds == {torch.float64}
        torch.testing.assert_close(model(**batch).logits.float(), ours)
        detach(model)
        torch.testing.assert_close(model(**batch).logits, base.double(), rtol=1e-4, atol=1e-5)


def test_what_was_attached_in_inference_mode_trains() -> None:
    model = zoo.tiny("bert", "classification")
    with torch.inference_mode():
        adapter = attach(model, Houlsby(3))
    model(**zoo.batch(model)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())


@pytest.mark.parametrize("method", [Pfeiffer(10**9), PromptTuning(10**9, init="uniform"), PrefixTuning(10**9)])
def test_more_than_there_is_memory_for_is_refused(method: Method) -> None:
    model = zoo.tiny("llama")
    before = trace(model)
    with pytest.raises(Refused, match=r"asks for [\d,]{13,} bytes .* and [\d,]+ bytes are free on cpu"):
        attach(model, method)
    assert trace(model) == before and grafted(model) is None


def test_an_adapter_says_in_two_lines_what_it_is() -> None:
    adapter = attach(zoo.tiny("bert", "classification"), LoRA(rank=2), "topics")
    said = repr(adapter).splitlines()
    assert len(said) == 2 and "topics" in said[0] and "q 2, v 2" in said[0] and "LoRA(rank=2" in said[1]
    assert f"{sum(p.numel() for p in adapter.parameters()):,}" in said[0]
