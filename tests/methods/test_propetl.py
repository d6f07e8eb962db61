"""ProPETL: published counts and storage, each form by hand, straight-through scores, masks as bits, refusals."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach, merge, use
from graft.checkpoint import load, save
from graft.composition import Frozen
from graft.errors import BadInput, Refused
from graft.method import Part
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.propetl import ProPETL
from graft.sparse import packed, unpacked
from methods import blocks
from methods.sizes import counts

FORMS = ("adapter", "prefix", "lora")


@pytest.mark.parametrize(
    ("model", "method", "trainable", "head"),
    [
        ("roberta-base", ProPETL(), 1_870_914 - 592_130, 592_130),
        ("roberta-large", ProPETL(), 5_404_759 - 1_051_650, 1_051_650),
        # The masks alone are the printed 1.77M with the head; A and B of q, and of v, are one for all layers.
        ("roberta-base", ProPETL("lora"), 1_771_778 - 592_130 + 4 * 768 * 32, 592_130),
        # 3.0M with the head: a network that gives one layer's prefix, and a mask of it for each layer.
        ("roberta-base", ProPETL("prefix"), 1_230_848 + 12 * 64 * 2 * 768, 592_130),
    ],
)
def test_counts_are_the_published_ones(model: str, method: ProPETL, trainable: int, head: int) -> None:
    found = counts(model, method)
    assert (found.trainable, found.head) == (trainable, head)


def test_stored_are_the_module_and_a_bit_for_each_weight_and_layer() -> None:
    assert counts("roberta-base", ProPETL()).stored == 4 * (592_130 + 136_000)


def kept(mask: Part, density: float) -> Tensor:
    """Ones at the scores of largest size, by sorting them."""
    sizes = mask.scores.detach().abs()
    least = sizes.flatten().sort(descending=True).values[round(density * sizes.numel()) - 1]
    return (sizes >= least).float()


@pytest.mark.parametrize("name", blocks.REWRITE)
def test_adapter_by_hand(name: str) -> None:
    """One bottleneck in every block, in both stacks of T5, with weights of it at zero."""
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "propetl", density=0.3)
    own, parts = adapter.parts["shared.0"], adapter.parts
    assert [key for key in parts if key.startswith("shared")] == ["shared.0"]

    def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
        layer, z = parts[blocks.key(name, index, "ffn")], out + residual
        z = base.bert.encoder.layer[index].output.LayerNorm(z) if name == "bert" else z
        down, up = own.down * kept(layer.down, 0.3), own.up * kept(layer.up, 0.3)
        return out + F.relu(z @ down.T + own.down_bias) @ up.T + own.up_bias

    blocks.REWRITE[name](base, ffn=change)
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_lora_and_prefix_are_the_plain_ones_with_masked_tensors() -> None:
    model, other = zoo.tiny("llama"), zoo.tiny("llama")
    parts = cases.grafted(model, "propetl", form="lora", density=0.3).parts
    plain = attach(other, LoRA(3, 48.0)).parts
    roles = {len(parts[f"shared.{i}"].B): parts[f"shared.{i}"] for i in (0, 1)}  # v is narrower: fewer heads
    for key, theirs in plain.items():
        shared = roles[len(theirs.B)]
        theirs.A.copy_(shared.A * kept(parts[key].A, 0.3)), theirs.B.copy_(shared.B * kept(parts[key].B, 0.3))
    batch = zoo.batch(model)
    torch.testing.assert_close(zoo.forward(model, batch), zoo.forward(other, batch), atol=2e-5, rtol=2e-5)
    detach(model), detach(other)
    parts = cases.grafted(model, "propetl", form="prefix", density=0.3).parts
    net, plain = parts["shared.0"], attach(other, PrefixTuning(3)).parts
    P = (torch.tanh(net.E @ net.W1.T + net.b1) @ net.W2.T + net.b2).unflatten(-1, (2, 2, 8)).transpose(0, 1)
    for key, theirs in plain.items():
        for tensor, value in zip((theirs.keys, theirs.values), P * kept(parts[key].P, 0.3), strict=True):
            tensor.copy_(value)
    torch.testing.assert_close(zoo.forward(model, batch), zoo.forward(other, batch), atol=2e-5, rtol=2e-5)


def test_scores_get_the_gradient_of_the_mask_and_choose_anew() -> None:
    model: nn.Module = zoo.tiny("bert")
    parts = cases.grafted(model, "propetl", density=0.5).parts
    mask, shared = parts["encoder.0.ffn"].down, parts["shared.0"].down.detach()
    seen: list[Tensor] = []
    on = parts["encoder.0.ffn"].on(shared.clone().requires_grad_(), "down", 0, torch.float32)
    on.register_hook(seen.append)
    (on * torch.randn(shared.shape)).sum().backward()
    torch.testing.assert_close(mask.scores.grad, seen[0] * shared * mask.scores.sign())
    assert int((on != 0).sum()) == mask.entries == shared.numel() // 2
    out = on == 0
    mask.scores.data[out] = 10.0
    assert bool((parts["encoder.0.ffn"].on(shared, "down", 0, torch.float32)[out] != 0).all())


@pytest.mark.parametrize("form", FORMS)
def test_saved_as_bits_and_the_same_again(form: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = zoo.tiny("t5")
    adapter = cases.grafted(model, "propetl", form=form)
    batch = zoo.batch(model)
    expected = zoo.forward(model, batch)
    save(model, "default", tmp_path)
    detach(model)
    again = load(model, tmp_path)
    assert again.method == adapter.method.serving()
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-6, rtol=1e-6)
    state = {name for part in again.parts.values() for name in part.state_dict()}
    assert not any("scores" in name or "W1" in name for name in state)
    assert any(name.endswith("bits") for name in state)


@pytest.mark.parametrize("shape", [(3, 5), (8,), (2, 3, 4)])
def test_bits(shape: tuple[int, ...]) -> None:
    found = torch.rand(shape) > 0.5
    bits = packed(found)
    assert bits.dtype == torch.uint8 and len(bits) == -(-found.numel() // 8)
    assert torch.equal(unpacked(bits, shape), found)


def test_groups_starts_and_refusals() -> None:
    parts = list(attach(zoo.tiny("bert"), ProPETL("lora", rank=3)).parts.values())
    shared, masks = ProPETL("lora").groups(parts)
    assert masks["lr"] == 3e-2 and masks["weight_decay"] == 0 and len(masks["params"]) == 2 * 2 * 2
    assert len(shared["params"]) == 2 * 2
    assert ProPETL("lora").start == "exact"
    for density in (0, 1, 1.5, "half", True):
        with pytest.raises(BadInput, match=r"density must be (above 0 and below 1|a number or None)"):
            ProPETL(density=density)
    with pytest.raises(BadInput, match="mask_lr must be above 0"):
        ProPETL(mask_lr=0)
    with pytest.raises(BadInput, match="rank must be at least 1"):
        ProPETL(rank=0)
    with pytest.raises(BadInput, match=r"reduction 64 leaves no bottleneck .* Choose at most 32"):
        attach(zoo.tiny("bert"), ProPETL(reduction=64))
    with pytest.raises(BadInput, match="rank 40 at"):
        attach(zoo.tiny("bert"), ProPETL("lora", rank=40))


TASKS = ("nli", "qa")
SIZES = {"density": 0.4, "reduction": 4, "tokens": 3, "hidden": 6, "rank": 3}
MODULE = {"adapter": ("decoder.1.ffn", "down"), "lora": ("decoder.1.q", "A"), "prefix": ("decoder.1.attention", "P")}


def of_tasks(form: str, join: str = "or", name: str = "llama") -> tuple:
    """A model with a module that two tasks share, as if trained, and its adapter."""
    model = zoo.tiny(name)
    adapter = attach(model, ProPETL(form, tasks=TASKS, join=join, **SIZES))
    cases.move(adapter)
    return model, adapter


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("join", ["or", "and", "sum"])
def test_masks_of_tasks_are_joined_to_those_of_layers(form: str, join: str) -> None:
    _, adapter = of_tasks(form, join)
    key, name = MODULE[form]
    part = adapter.parts[key]
    for task in range(2):
        own, other = kept(getattr(part, name), 0.4), kept(part.lent[1].masks[task][part.names.index(name)], 0.4)
        joined = {"or": torch.maximum(own, other), "and": torch.minimum(own, other), "sum": own + other}[join]
        assert torch.equal(part.kept(name, task), joined)
    assert not torch.equal(part.kept(name, 0), part.kept(name, 1))
    part.kept(name, 1).square().sum().backward()
    scores = [mask[part.names.index(name)].scores.grad for mask in part.lent[1].masks]
    assert scores[0] is None and bool(scores[1].any()) and bool(getattr(part, name).scores.grad.any())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("join", ["or", "and"])
def test_rows_of_several_tasks_equal_each_alone_and_each_frozen(form: str, join: str, tmp_path: Path) -> None:
    model, _ = of_tasks(form, join, "t5")
    batch, alone = zoo.batch(model), {}
    for task in TASKS:
        with use(model, "default", task), torch.no_grad():
            alone[task] = zoo.forward(model, batch)
    assert not torch.allclose(alone["qa"], alone["nli"], atol=1e-3)
    with use(model, "default", ["qa", "nli"]), torch.no_grad():
        together = zoo.forward(model, batch)
    torch.testing.assert_close(together, torch.stack((alone["qa"][0], alone["nli"][1])), atol=3e-5, rtol=3e-5)
    made = attach(model, Frozen("default", task="qa"), "qa")
    assert made.method == ProPETL(form, join=join, packed=True, **SIZES)
    torch.testing.assert_close(zoo.forward(model, batch), alone["qa"], atol=1e-5, rtol=1e-5)
    detach(model, "qa")
    save(model, "default", tmp_path / "both")
    detach(model)
    load(model, tmp_path / "both")
    with use(model, "default", ["qa", "nli"]), torch.no_grad():
        torch.testing.assert_close(zoo.forward(model, batch), together, atol=1e-5, rtol=1e-5)


def test_masks_of_tasks_are_counted_and_have_the_rate_of_masks() -> None:
    model, adapter = of_tasks("adapter")
    (_, parts), *_ = adapter.terms()
    _, masks = adapter.method.groups(parts)
    entries = 2 * 32 * 8
    assert sum(p.numel() for p in masks["params"]) == (2 + 2) * entries and masks["lr"] == 3e-3
    assert adapter.counts.trainable == 4 * entries + entries + 32 + 8
    assert adapter.counts.stored == 4 * (entries + 32 + 8) + 4 * entries // 8
    with pytest.raises(Refused, match="Serve it attached"):
        merge(of_tasks("lora")[0])
    model, _ = of_tasks("adapter", "sum")
    with pytest.raises(BadInput, match="summed masks are no bits"):
        attach(model, Frozen("default", task="qa"), "qa")
    for wrong in (("a",), ("a", "a"), "ab"):
        with pytest.raises(BadInput):
            ProPETL(tasks=wrong)
