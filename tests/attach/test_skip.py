"""Skipping frozen layers: the same outputs and gradients as without, which layers run, and when nothing is skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import Adapter, attach, use
from graft.attach.skip import Frozen, frozen, skipped
from graft.errors import Refused
from graft.method import Method
from graft.methods.ladder_side import LadderSide
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.top_layers import TopLayers

HIGH = {
    "lora": LoRA(rank=2, sites="all-linear @ top 1"),
    "top": TopLayers(1),
    "side": LadderSide(reduction=4),
}
TURNING = ("llama", "mistral", "gemma2", "gpt_neox", "bloom")  # positions do not depend on padding on the left
FIXED = ("bert", "roberta", "deberta_v2", "modernbert", "gpt2", "opt")


class Everything:
    """A store with room for everything."""

    def __init__(self) -> None:
        self.extras: int | None = None
        self.seconds = 0.0
        self.kept: dict[tuple[bytes, int], Tensor] = {}

    def get(self, row: bytes, layer: int) -> Tensor | None:
        return self.kept.get((row, layer))

    def put(self, row: bytes, layer: int, state: Tensor) -> None:
        self.kept[row, layer] = state


def made(name: str, method: Method, task: str = "lm", **more: Any) -> tuple[nn.Module, Adapter, Frozen]:
    model = zoo.tiny(name, task, **more)
    adapter = attach(model, method)
    cases.move(adapter)
    found = frozen(adapter)
    assert found is not None
    return model, adapter, found


@contextmanager
def counted(model: nn.Module, found: Frozen) -> Iterator[list[int]]:
    """How often something inside each layer ran."""
    times = [0] * len(found.stack.layers)
    handles = []
    for number, path in enumerate(found.stack.layers):
        inner = next(m for m in model.get_submodule(path).modules() if isinstance(m, nn.LayerNorm) or "Norm" in repr(m))

        def count(*_: Any, number: int = number) -> None:
            times[number] += 1

        first = next(m for m in inner.modules() if not list(m.children()))
        handles.append(first.register_forward_hook(count))
    yield times
    for handle in handles:
        handle.remove()


def slopes(model: nn.Module, adapter: Adapter, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The outputs at real tokens and the gradients of their squares."""
    out = zoo.forward(model, batch)
    real = out[batch["attention_mask"].bool()] if out.shape[:2] == batch["attention_mask"].shape else out
    return real.detach(), list(torch.autograd.grad(real.square().sum(), adapter.parameters()))


@pytest.mark.parametrize("which", HIGH)
@pytest.mark.parametrize(("name", "left"), [*((n, True) for n in TURNING), *((n, False) for n in (*FIXED, "llama"))])
def test_outputs_and_gradients_are_those_of_the_whole_model(name: str, left: bool, which: str) -> None:
    model, adapter, found = made(name, HIGH[which])
    batch = zoo.batch(model, left_padding=left)
    plain, gradients = slopes(model, adapter, batch)
    store = Everything()
    for _ in range(2):
        with skipped(adapter, found, store):
            ours, again = slopes(model, adapter, batch)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(again, gradients, rtol=1e-3, atol=1e-3)
    assert len(store.kept) == len(batch["input_ids"]) * len(found.layers)


def test_a_norm_after_the_layers_is_above_them() -> None:
    model, adapter, found = made("gpt2", TopLayers(1, final_norm=True))
    assert found.depth == 1
    _, gradients = slopes(model, adapter, zoo.batch(model))
    with skipped(adapter, found, Everything()):
        _, again = slopes(model, adapter, zoo.batch(model))
    torch.testing.assert_close(again, gradients, rtol=1e-3, atol=1e-3)


def test_the_encoder_of_two_stacks_is_skipped() -> None:
    for name in ("t5", "bart"):
        model, adapter, found = made(name, TopLayers(1))
        assert found.stack.name == "encoder" and found.depth == 2
        batch = zoo.batch(model)
        plain, gradients = slopes(model, adapter, batch)
        with skipped(adapter, found, Everything()):
            ours, again = slopes(model, adapter, batch)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again, gradients, rtol=1e-3, atol=1e-3)


def test_the_head_alone_runs_no_layer() -> None:
    model, adapter, found = made("bert", TopLayers(0), "classification")
    assert (found.depth, found.layers) == (2, (1,))
    batch, store = zoo.batch(model), Everything()
    plain = zoo.forward(model, batch)
    with counted(model, found) as times, skipped(adapter, found, store):
        torch.testing.assert_close(zoo.forward(model, batch), plain)
        rows = len(batch["input_ids"])
        assert times == [rows, rows]
        torch.testing.assert_close(zoo.forward(model, batch), plain)
        assert times == [rows, rows]
    with counted(model, found) as times:
        assert torch.equal(zoo.forward(model, batch), plain)
        assert times == [1, 1]


def test_rows_are_known_by_their_content() -> None:
    model, adapter, found = made("llama", HIGH["lora"])
    batch, store = zoo.batch(model), Everything()
    swapped = {name: tensor.flip(0) for name, tensor in batch.items()}
    short = {name: tensor[1:, : zoo.LENGTHS[1]] for name, tensor in batch.items()}
    plain = zoo.forward(model, swapped)
    with skipped(adapter, found, store):
        zoo.forward(model, batch)
        kept = dict(store.kept)
        torch.testing.assert_close(zoo.forward(model, swapped)[1], plain[1], rtol=1e-4, atol=1e-5)
        zoo.forward(model, short)
        assert store.kept.keys() == kept.keys()
        other = {**batch, "input_ids": batch["input_ids"].roll(1, 1)}
        zoo.forward(model, other)
    assert len(store.kept) == 2 * len(kept)


def test_frozen_layers_run_without_their_dropout() -> None:
    model, adapter, found = made("bert", HIGH["side"], "classification", dropout=0.5)
    batch = zoo.batch(model)
    plain = zoo.forward(model, batch)
    model.train()
    model.dropout.p = 0.0  # the head's own, which trains
    assert not torch.allclose(zoo.forward(model, batch), plain)
    with skipped(adapter, found, Everything()):
        for module in model.bert.pooler.modules():
            module.eval()
        torch.testing.assert_close(zoo.forward(model, batch), plain, rtol=1e-4, atol=1e-5)
        assert model.training and model.bert.encoder.layer[0].training


def test_a_forward_that_is_no_rows_of_tokens_runs_as_ever() -> None:
    model, adapter, found = made("llama", HIGH["lora"])
    batch, store = zoo.batch(model), Everything()
    embeds = model.model.embed_tokens(batch["input_ids"])
    inputs = [
        {"inputs_embeds": embeds, "attention_mask": batch["attention_mask"]},
        {**batch, "output_hidden_states": True},
        {**batch, "attention_mask": batch["attention_mask"].index_fill(1, torch.tensor([2]), 0)},
    ]
    for each in inputs:
        plain = model(**each)
        with skipped(adapter, found, store):
            ours = model(**each)
        assert torch.equal(ours.logits, plain.logits)
    assert not store.kept
    with skipped(adapter, found, store):
        out = model.generate(batch["input_ids"][:1], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert torch.equal(out, model.generate(batch["input_ids"][:1], max_new_tokens=4, min_new_tokens=4, do_sample=False))


def test_another_adapter_runs_as_ever_and_the_base_is_skipped_too() -> None:
    model, adapter, found = made("llama", HIGH["lora"])
    cases.grafted(model, "lora", "other")
    batch, store = zoo.batch(model), Everything()
    with use(model, "other"):
        plain = zoo.forward(model, batch)
        with skipped(adapter, found, store):
            assert torch.equal(zoo.forward(model, batch), plain)
    assert not store.kept
    with use(model, None):
        plain = zoo.forward(model, batch)
        with skipped(adapter, found, store):
            torch.testing.assert_close(zoo.forward(model, batch)[0], plain[0], rtol=1e-4, atol=1e-5)
    assert store.kept


def test_the_model_is_left_as_it_was() -> None:
    model, adapter, found = made("bert", HIGH["lora"])
    before = [(sorted(m.__dict__), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    with pytest.raises(ZeroDivisionError), skipped(adapter, found, Everything()):
        raise ZeroDivisionError
    assert [(sorted(m.__dict__), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == before


def test_nothing_is_frozen_under_what_moves_positions_or_touches_the_bottom() -> None:
    none = [LoRA(rank=2), TopLayers("all"), TopLayers(2), PrefixTuning(2), PrefixTuning(2, sites="attention @ top 1"),
            LoRA(rank=2, sites="q @ top 1; embed")]  # fmt: skip
    for method in none:
        assert frozen(attach(zoo.tiny("llama"), method)) is None, method
    assert frozen(attach(zoo.tiny("albert", "classification"), TopLayers(0))) is None
    opt = zoo.tiny("opt")
    opt.config.layerdrop = 0.1
    assert frozen(attach(opt, TopLayers(1))) is None


def test_layers_that_are_left_out_are_told() -> None:
    model, adapter, found = made("llama", HIGH["lora"])
    store, batch = Everything(), zoo.batch(model)
    for _ in range(2):
        model.config.num_hidden_layers = 0
        with pytest.raises(Refused, match="did not run its layers"), skipped(adapter, found, store):
            zoo.forward(model, batch)
        model.config.num_hidden_layers = 2
        with skipped(adapter, found, store):
            zoo.forward(model, batch)
    assert store.kept
