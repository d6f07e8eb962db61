"""Weighted sum of layers: its counts, the sum of transformers' own hidden states, and that the base stays out of it."""

import pytest
import torch
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import Refused
from graft.methods.lora import LoRA
from graft.methods.weighted_sum import WeightedSum
from methods.sizes import counts


def test_counts() -> None:
    found = counts("wav2vec2-large", WeightedSum())
    assert (found.trainable, found.head) == (25, 265_227)
    assert counts("hubert-base", WeightedSum()).trainable == 13
    assert counts("hubert-base", WeightedSum(include_embeddings=False)).trainable == 12
    assert counts("t5-base", WeightedSum()).trainable == 13  # the decoder's


@pytest.mark.parametrize("embeddings", [True, False])
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "albert", "wav2vec2"])
def test_sum_of_hidden_states(name: str, embeddings: bool) -> None:
    plain, tuned = zoo.tiny(name, "base"), zoo.tiny(name, "base")
    adapter = cases.grafted(tuned, "weighted_sum", include_embeddings=embeddings)
    batch = zoo.batch(plain)
    output = plain(**batch, output_hidden_states=True)
    states = list(output.decoder_hidden_states if name == "t5" else output.hidden_states)
    states = [*states[not embeddings : -1], output.last_hidden_state]
    weights = adapter.parameters()[0].exp() / adapter.parameters()[0].exp().sum()
    assert len(weights) == len(states)
    want = sum(weight * state for weight, state in zip(weights, states, strict=True))
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)


def test_starts_as_the_mean_and_norms_where_asked() -> None:
    plain, tuned = zoo.tiny("gpt2", "base"), zoo.tiny("gpt2", "base")
    attach(tuned, WeightedSum(normalize=True))
    batch = zoo.batch(plain)
    output = plain(**batch, output_hidden_states=True)
    states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state])
    normed = (states - states.mean(-1, keepdim=True)) / (states.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(zoo.forward(tuned, batch), normed.mean(0), atol=1e-5, rtol=1e-5)


def test_no_gradient_enters_the_base_and_other_parts_get_theirs() -> None:
    model = zoo.tiny("bert", "classification")
    attach(model, WeightedSum())
    inside: list[Tensor] = []
    for layer in model.bert.encoder.layer:
        layer.register_forward_hook(lambda module, args, output: inside.append(output))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert inside and not any((out[0] if isinstance(out, tuple) else out).requires_grad for out in inside)
    both = zoo.tiny("bert", "classification")
    adapter = attach(both, LoRA(sites="q") + WeightedSum())
    zoo.forward(both, zoo.batch(both)).square().mean().backward()
    assert all(part.B.grad.any() for key, part in adapter.parts.items() if key.endswith("q"))


def test_layers_that_are_left_out_are_refused() -> None:
    model = zoo.tiny("wav2vec2", "base", layerdrop=1.0).train()
    attach(model, WeightedSum())
    with pytest.raises(Refused, match=r"ran 0 of 2 layers.*layerdrop to 0"):
        zoo.forward(model, zoo.batch(model))
