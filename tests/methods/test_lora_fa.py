"""LoRA-FA: counts, the equation, what stays frozen, the activations it does not keep, the preconditioned gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import zoo
from graft import checkpoint, memory
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.method import find
from graft.methods.lora_fa import LoRAFA
from methods.moments import moment
from methods.sizes import counts


@pytest.mark.parametrize(
    ("model", "trainable", "every"), [("roberta-base", 147_456, 294_912), ("llama-7b", 2_097_152, 4_194_304)]
)
def test_counts_are_those_of_B(model: str, trainable: int, every: int) -> None:
    found = counts(model, LoRAFA(rank=8))
    assert (found.trainable, found.rank) == (trainable, 8)
    assert found.stored == 4 * (every + found.head)  # A is stored too, once


@pytest.mark.parametrize("sites", ["q v", "embed"])
@pytest.mark.parametrize("rslora", [False, True])
def test_equation(rslora: bool, sites: str) -> None:
    plain, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "lora_fa", rank=4, alpha=6.0, rslora=rslora, sites=sites)
    scale = 6.0 / 2 if rslora else 6.0 / 4
    for key, part in adapter.parts.items():
        if sites == "embed":
            plain.model.embed_tokens.weight.data += scale * (part.B.detach() @ part.A).T
            continue
        attention = plain.model.layers[int(key.split(".")[1])].self_attn
        (attention.q_proj if key.endswith("q") else attention.v_proj).weight.data += scale * part.B.detach() @ part.A
    batch = zoo.batch(plain)
    want = zoo.forward(plain, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)
    if sites == "q v":
        merge(tuned)
        torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)


def test_A_is_random_and_frozen_and_B_is_zero() -> None:
    part = attach(zoo.tiny("llama", hidden_size=256, num_attention_heads=4, head_dim=64), LoRAFA(rank=64)).parts[
        "decoder.0.q"
    ]
    assert [name for name, _ in part.named_parameters()] == ["B"] and not part.B.any()
    assert part.A.abs().max() <= 1 / 16 and abs(float(part.A.std()) * 16 * 3**0.5 - 1) < 0.05


def kept(method: str, **settings: Any) -> int:
    """Bytes that one training forward of a tiny Llama keeps for its backward."""
    model = zoo.tiny("llama")
    attach(model, find(method)(rank=2, sites="all-linear", **settings))
    model.train()
    batch = zoo.batch(model)
    return memory.kept_bytes(lambda: zoo.forward(model, batch))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_it_keeps_fewer_activations_than_lora(dropout: float) -> None:
    """Of each site's input nothing is left but A x; what attention and the norms keep is the base's own."""
    tokens = zoo.batch(zoo.tiny("llama"))["input_ids"].numel()
    fa, lora = kept("lora_fa", dropout=dropout), kept("lora", dropout=dropout)
    # Counted once each, without dropout: what q, k and v read, what o reads, what gate and up read.
    assert lora - fa >= 2 * 3 * 32 * tokens * 4
    if dropout:  # LoRA keeps a dropped copy for each of seven sites, and its mask
        assert lora - fa > 2 * 7 * 32 * tokens * 4
        assert fa - kept("lora_fa") <= 2 * 7 * 2 * tokens * (4 + 4 + 1)  # of width r


def test_one_map_keeps_A_x_alone() -> None:
    model = zoo.tiny("llama")
    part = attach(model, LoRAFA(rank=2, sites="q")).parts["decoder.0.q"]
    x, y = torch.randn(1, 50, 32, requires_grad=True), torch.zeros(1, 50, 32)
    sizes: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.shape) or t, lambda t: t):
        part.after(x, y, None, None)
    assert torch.Size([1, 50, 32]) not in sizes and torch.Size([50, 32]) not in sizes
    assert any(size.numel() == 100 for size in sizes)


def test_preconditioned_gradient() -> None:
    method = LoRAFA(rank=4, precondition=True)
    model = zoo.tiny("llama")
    adapter = attach(model, method)
    cases.move(adapter)
    parts = list(adapter.parts.values())
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    before = [part.B.grad.clone() for part in parts]
    assert (
        method.during("loss", moment(0), parts) is None and LoRAFA(rank=4).during("gradients", moment(0), parts) is None
    )
    assert all(torch.equal(part.B.grad, g) for part, g in zip(parts, before, strict=True))
    assert method.during("gradients", moment(0), parts) is None
    for part, g in zip(parts, before, strict=True):
        want = g.double() @ torch.linalg.inv(part.A.double() @ part.A.double().T) / (16 / 4) ** 2
        torch.testing.assert_close(part.B.grad.double(), want, atol=1e-7, rtol=1e-3)


def test_a_preconditioned_step_is_the_nearest_to_the_full_gradient() -> None:
    """−g(AAᵀ)⁻¹/s² is the B whose s·B A is the projection of the weight's own gradient on the rows of A."""
    part = attach(zoo.tiny("llama"), LoRAFA(rank=4, sites="q", precondition=True)).parts["decoder.0.q"]
    G = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    part.B.grad = part.scale * G @ part.A.T
    part.precondition()
    nearest = torch.linalg.lstsq(part.A.T, G.T).solution.T  # min ‖C A − G‖
    torch.testing.assert_close(part.scale * part.B.grad, nearest, atol=1e-4, rtol=1e-3)


def test_is_stored_as_a_lora(tmp_path: Path) -> None:
    tuned, other = zoo.tiny("llama"), zoo.tiny("llama")
    cases.grafted(tuned, "lora_fa", "mine", rank=3, rslora=True)
    checkpoint.save(tuned, "mine", tmp_path / "adapter")
    assert checkpoint.load(other, tmp_path / "adapter").method == find("lora")(rank=3, rslora=True)
    batch = zoo.batch(tuned)
    torch.testing.assert_close(zoo.forward(other, batch), zoo.forward(tuned, batch), atol=1e-6, rtol=1e-6)


def test_impossible_settings() -> None:
    for settings in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(BadInput, match=f"LoRAFA: {next(iter(settings))} must"):
            LoRAFA(**settings)
    with pytest.raises(BadInput, match="choose at most 16"):
        attach(zoo.tiny("llama"), LoRAFA(rank=20))
    with pytest.raises(Refused, match="the weight there is a vector"):
        attach(zoo.tiny("llama"), LoRAFA(rank=2, sites="norm"))
