"""Ladder side-tuning: its size, that nothing back-propagates into the base, and what that saves."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, T5Config

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.ladder_side import LadderSide
from graft.methods.lora import LoRA

T5_BASE = T5Config(
    vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0
)


@pytest.mark.parametrize(("drop_every", "expected"), [(0, 5_097_240), (4, 3_878_706)])
def test_size_on_t5_base(drop_every: int, expected: int) -> None:
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(T5_BASE)
    assert attach(model, LadderSide(reduction=8, drop_every=drop_every)).counts.trainable == expected


def kept_for_backward(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Bytes that autograd keeps from a forward for its backward, the model's own parameters apart."""
    own, seen = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = zoo.forward(model, batch).square().mean()
    assert loss.requires_grad
    return sum(seen.values())


def test_training_keeps_less_than_a_method_inside_the_base() -> None:
    width = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4}
    kept = {}
    for method in (LadderSide(reduction=8), LoRA(rank=2)):
        model = zoo.tiny("bert", "classification", **width)
        cases.move(attach(model, method))
        kept[type(method).__name__] = kept_for_backward(model, zoo.batch(model))
    assert kept["LadderSide"] < 0.5 * kept["LoRA"]


def test_no_gradient_enters_the_base() -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "ladder_side")
    inside: list[Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, args, output: inside.append(output))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert inside and not any((out[0] if isinstance(out, tuple) else out).requires_grad for out in inside)


def test_width_must_be_divisible() -> None:
    with pytest.raises(BadInput, match="reduction 5 does not divide"):
        attach(zoo.tiny("llama"), LadderSide(reduction=5))
    with pytest.raises(BadInput, match="leaves no side block"):
        LadderSide(drop_every=1)


def test_sees_no_virtual_tokens_with_a_cache_or_without() -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, cases.method("prompt_tuning") + cases.method("ladder_side")))
    batch = zoo.batch(model)
    real = batch["attention_mask"].bool()
    cached, whole = (model(**batch, use_cache=on).logits[real] for on in (True, False))
    torch.testing.assert_close(cached, whole, atol=2e-5, rtol=2e-5)
