"""Ladder side-tuning: its size, that nothing back-propagates into the base, and what that saves."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, T5Config

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.ladder_side import Ladder, LadderSide
from graft.methods.lora import LoRA

FEW = ("gpt2", "mixtral", "albert")
T5_BASE = T5Config(
    vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0
)


@pytest.mark.parametrize(("settings", "expected"), [({"drop": ()}, 5_097_240), ({}, 3_878_706)])
def test_size_on_t5_base(settings: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(T5_BASE)
    assert attach(model, LadderSide(reduction=8, **settings)).counts.trainable == expected


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
    for drop, complaint in (((0, 1), "leaves no side block"), ((2,), "the last block is 1")):
        with pytest.raises(BadInput, match=complaint):
            attach(zoo.tiny("llama"), LadderSide(reduction=4, drop=drop))
    with pytest.raises(BadInput, match="must be different blocks"):
        LadderSide(drop=(1, 1))


def test_a_module_that_runs_as_several_layers_leaves_out_the_runs_that_are_dropped() -> None:
    model = zoo.tiny("albert")
    cases.move(attach(model, LadderSide(reduction=4, drop=(0, 2))))
    ladder = next(m for m in model.modules() if isinstance(m, Ladder))
    assert ladder.rungs == 1
    seen = []
    down = ladder._down
    ladder._down = lambda i, b: seen.append(b) or down(i, b)  # type: ignore[method-assign]
    states = model(**zoo.batch(model), output_hidden_states=True).hidden_states
    assert torch.equal(seen[0], states[0]) and torch.equal(seen[1], states[2]) and len(seen) == 2


def best(scores: Tensor, many: int) -> Tensor:
    return scores.argsort(descending=True)[:many].sort().values


def test_begins_as_the_base_pruned_by_size() -> None:
    """Two of four query heads share a key head; each keeps two of its eight dimensions."""
    model = zoo.tiny("llama")
    attach(model, LadderSide(reduction=4, drop=(0,)))
    ladder = next(m for m in model.modules() if isinstance(m, Ladder))
    layer = model.model.layers[1]
    q, k, v, o = (getattr(layer.self_attn, f"{n}_proj").weight for n in "qkvo")
    gate, down = layer.mlp.gate_proj.weight, layer.mlp.down_proj.weight
    dims = best(sum(W.abs().sum(0) for W in (q, k, v, gate)) + sum(W.abs().sum(1) for W in (o, down)), 8)
    assert torch.equal(ladder.down_0, torch.eye(32)[dims]) and torch.equal(ladder.down_1, torch.eye(32)[dims])
    neurons = best(gate.abs().sum(1) + down.abs().sum(0), 32)
    assert torch.equal(ladder.wide_0, gate[neurons][:, dims])
    assert torch.equal(ladder.narrow_0, down[dims][:, neurons])
    for head in range(4):
        rows, keys, mine = (
            slice(8 * head, 8 * head + 8),
            slice(8 * (head // 2), 8 * (head // 2) + 8),
            [2 * head, 2 * head + 1],
        )
        asked = best(q[rows].abs().sum(1) + k[keys].abs().sum(1), 2)
        given = best(v[keys].abs().sum(1) + o[:, rows].abs().sum(0), 2)
        torch.testing.assert_close(ladder.self_q_0[mine], q[rows][asked][:, dims] * 8**-0.5)
        assert torch.equal(ladder.self_k_0[mine], k[keys][asked][:, dims])
        assert torch.equal(ladder.self_v_0[mine], v[keys][given][:, dims])
        assert torch.equal(ladder.self_o_0[:, mine], o[:, rows][:, given][dims])


def test_begins_as_the_base_pruned_by_fisher_information() -> None:
    model = zoo.tiny("t5")
    method = LadderSide(reduction=4, drop=(), init="fisher", samples=3)
    adapter = attach(model, method)
    assert "on training rows" in " ".join(adapter.remarks)
    batch = zoo.batch(model)
    batches = [{**batch, "labels": batch["decoder_input_ids"]} for _ in range(2)]
    method.prepare(model, batches, list(adapter.parts.values()))
    plain = zoo.tiny("t5")
    first = plain.decoder.block[0].layer[-1].DenseReluDense
    every = [m.weight for m in plain.modules() if isinstance(m, nn.Linear) and m is not plain.lm_head]
    scores = [torch.zeros_like(W) for W in every]
    for row in (0, 1, 0):
        loss = plain(**{key: value[row : row + 1] for key, value in batches[0].items()}).loss
        for score, gradient in zip(scores, torch.autograd.grad(loss, every), strict=True):
            score += gradient.square()
    by = dict(zip(map(id, every), scores, strict=True))
    outputs = {id(m.weight) for n, m in plain.named_modules() if n.endswith((".o", ".wo"))}
    memory = {id(m.weight) for n, m in plain.named_modules() if n.endswith(("EncDecAttention.k", "EncDecAttention.v"))}
    dims = best(sum(by[id(W)].sum(1 if id(W) in outputs else 0) for W in every if id(W) not in memory), 8)
    ladder = [m for m in model.modules() if isinstance(m, Ladder)][-1]
    assert torch.equal(ladder.down_2, torch.eye(32)[dims])
    neurons = best(by[id(first.wi.weight)].sum(1) + by[id(first.wo.weight)].sum(0), 32)
    assert torch.equal(ladder.wide_0, first.wi.weight[neurons][:, dims])


@pytest.mark.parametrize("name", cases.some([*FEW, *sorted(set(zoo.TEXT) - set(FEW))], len(FEW)))
def test_begins_on_every_model_as_the_base(name: str) -> None:
    model = zoo.tiny(name)
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, LadderSide(reduction=4))
    assert torch.allclose(zoo.forward(model, batch), base, atol=1e-5)
    bare = ("mixtral", "qwen3_moe", "gpt_oss")
    assert any("at random in part" in remark for remark in adapter.remarks) == (name in bare)


def test_sees_no_virtual_tokens_with_a_cache_or_without() -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, cases.method("prompt_tuning") + cases.method("ladder_side")))
    batch = zoo.batch(model)
    real = batch["attention_mask"].bool()
    cached, whole = (model(**batch, use_cache=on).logits[real] for on in (True, False))
    torch.testing.assert_close(cached, whole, atol=2e-5, rtol=2e-5)
