"""Res-Tuning-Bypass: the published count, the chain by hand in both forms, and that the base stays out of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput, Refused
from graft.method import Part
from graft.methods.lora import LoRA
from graft.methods.res_tuning_bypass import Chain, ResTuningBypass
from methods.sizes import counts


def test_counts() -> None:
    assert counts("roberta-base", ResTuningBypass()).trainable == 387_312  # of ViT-B/16's shapes, published
    assert counts("t5-base", ResTuningBypass()).trainable == 387_312  # the decoder's


def bottleneck(part: Part, which: int, layer: int, u: Tensor) -> Tensor:
    at = (which, layer)
    return u + F.gelu(u @ part.down[at].T + part.down_bias[at]) @ part.up[at].T + part.up_bias[at]


@torch.no_grad()
@pytest.mark.parametrize("form", ["correction", "paper"])
@pytest.mark.parametrize("name", ["gpt2", "t5", "albert"])
def test_chain_of_hidden_states(name: str, form: str) -> None:
    plain, tuned = zoo.tiny(name, "base"), zoo.tiny(name, "base")
    *_, part = cases.grafted(tuned, "res_tuning_bypass", form=form).parts.values()
    batch = zoo.batch(plain)
    output = plain(**batch, output_hidden_states=True)
    states = list(output.decoder_hidden_states if name == "t5" else output.hidden_states)
    states[-1] = output.last_hidden_state
    chain = states[0]
    for layer, state in enumerate(states[1:]):
        chain = bottleneck(part, 0, layer, state) + bottleneck(part, 1, layer, chain)
    expected = chain if form == "paper" else states[-1] + chain - sum(states)
    torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=3e-5, rtol=3e-5)


@torch.no_grad()
def test_starts_as_the_base_or_as_the_sum_of_its_layers() -> None:
    plain, batch = zoo.tiny("bert", "base"), zoo.batch(zoo.tiny("bert"))
    ours, published = zoo.tiny("bert", "base"), zoo.tiny("bert", "base")
    adapter, paper = attach(ours, ResTuningBypass(2)), attach(published, ResTuningBypass(2, "paper"))
    assert torch.equal(zoo.forward(ours, batch), zoo.forward(plain, batch)) and adapter.method.start == "exact"
    assert not torch.allclose(zoo.forward(published, batch), zoo.forward(plain, batch), atol=0.1)
    *_, part = paper.parts.values()
    assert paper.method.start == "elsewhere" and not part.up[:, -1].any() and part.up[:, :-1].all()


@pytest.mark.parametrize("form", ["correction", "paper"])
def test_no_gradient_enters_the_base_and_other_parts_get_theirs(form: str) -> None:
    model = zoo.tiny("llama")
    adapter = cases.grafted(model, "res_tuning_bypass", form=form)
    inside: list[Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, args, output: inside.append(output))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert inside and not any((out[0] if isinstance(out, tuple) else out).requires_grad for out in inside)
    assert all(p.grad[:, layer].any() for p in adapter.parameters() for layer in range(2))
    both = zoo.tiny("bert", "classification")
    adapter = attach(both, LoRA(sites="q") + ResTuningBypass(4, form))
    zoo.forward(both, zoo.batch(both)).square().mean().backward()
    assert all(part.B.grad.any() for key, part in adapter.parts.items() if key.endswith("q"))
    assert sum(isinstance(part, Chain) for part in adapter.parts.values()) == 1


def test_refusals() -> None:
    with pytest.raises(BadInput, match="ResTuningBypass: bottleneck must be at least 1"):
        ResTuningBypass(0)
    model = zoo.tiny("wav2vec2", "base", layerdrop=1.0).train()
    attach(model, ResTuningBypass())
    with pytest.raises(Refused, match=r"ran 0 of 2 layers.*layerdrop to 0"):
        zoo.forward(model, zoo.batch(model))
