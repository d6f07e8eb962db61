"""HyperTuning: what is read and written by hand, rows of several tasks, drawing, freezing, storing, refusals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cases
import zoo
from graft.attach import Adapter, attach, detach, grafted, use
from graft.checkpoint import load, save
from graft.composition import Frozen
from graft.errors import BadInput, Refused
from graft.methods.hypertuning import HyperTuning
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.training.resume import copy_of, put

TASKS = ("nli", "qa")
SIZES: dict[str, Any] = {"tokens": 3, "rank": 3, "width": 8, "heads": 2, "examples": 2, "pool": 4, "length": 6}
FORMS = pytest.mark.parametrize("emits", ["prefix", "lora"])


def rows_of(model: nn.Module, tasks: tuple[str, ...] | None = TASKS) -> Mapping[str, Any]:
    """Ten training rows, of one task and of the other in turn."""
    ids = torch.randint(5, zoo.VOCABULARY, (10, 9), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(9) < torch.arange(10)[:, None] % 6 + 3).long()
    labels = torch.where(mask.bool() & (torch.arange(9) > 1), ids, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "tasks": tasks and tasks * 5}


def reading(name: str, emits: str) -> tuple[Any, Adapter]:
    """A model with an adapter that has examples of two tasks, and looks trained."""
    model = zoo.tiny(name)
    adapter = attach(model, HyperTuning(TASKS, emits=emits, **SIZES))
    adapter.method.prepare(model, [rows_of(model)], list(adapter.parts.values()))
    cases.move(adapter)
    return model, adapter


def outputs(model: Any, batch: Mapping[str, Tensor], tasks: Any) -> Tensor:
    with use(model, "default", tasks), torch.no_grad():
        return zoo.forward(model, batch)


def test_what_it_reads_by_hand() -> None:
    model, adapter = reading("llama", "lora")
    reader, block = adapter.parts["shared.0"], adapter.parts["shared.0"].blocks[1]
    given = rows_of(model)
    for task, name in enumerate(TASKS):
        texts = [row[own.bool()][:6] for row, own in zip(given["input_ids"][task::2], given["attention_mask"][task::2],
                                                         strict=True)]  # fmt: skip
        kept = [ids[ids >= 0] for ids in reader.ids[TASKS.index(name)]]
        assert len(kept) == 4 and all(torch.equal(a, b) for a, b in zip(kept, texts, strict=False))
        x = [reader.queries]
        for ids in texts[:2]:
            e = model.get_input_embeddings().weight[ids]
            e = (e - e.mean(-1, keepdim=True)) / (e.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            turns = torch.arange(len(ids))[:, None] * torch.exp(-torch.arange(4) * 2 / 8 * 9.21)
            place = torch.stack((turns.sin(), turns.cos()), -1).flatten(1)
            x.append(e @ reader.W_in.T + reader.b_in + place)
        state = torch.cat(x)
        for block in reader.blocks:
            h = F.layer_norm(state, (8,), block.g_1, block.h_1)
            q, k, v = (h @ block.W_qkv.T + block.b_qkv).view(-1, 3, 2, 4).unbind(1)
            weights = torch.einsum("nhd,mhd->hnm", q, k).div(2.0).softmax(-1)
            state = state + torch.einsum("hnm,mhd->nhd", weights, v).flatten(1) @ block.W_o.T + block.b_o
            h = F.layer_norm(state, (8,), block.g_2, block.h_2)
            state = state + F.gelu(h @ block.W_1.T + block.b_1) @ block.W_2.T + block.b_2
        expected = F.layer_norm(state[:3], (8,), reader.gain, reader.shift)
        torch.testing.assert_close(reader.code(task), expected, atol=1e-5, rtol=1e-5)


def test_what_it_writes_by_hand() -> None:
    model, adapter = reading("llama", "lora")
    part = adapter.parts["decoder.1.q"]
    code = adapter.parts["shared.0"].code(1)
    out = F.gelu(code @ part.W_1.T + part.b_1) @ part.W_2.T + part.b_2
    x, y = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    site = next(placed.site for placed in adapter.placed if placed.key == "decoder.1.q")
    with use(model, "default", "qa"):
        ours = part.after(x, y, site, grafted(model).now())
    torch.testing.assert_close(ours, y + 16 / 3 * (x @ out[:, :32].T) @ out[:, 32:], atol=1e-5, rtol=1e-5)


@FORMS
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_rows_of_several_tasks_equal_each_alone(name: str, emits: str) -> None:
    model, _ = reading(name, emits)
    batch = zoo.batch(model)
    alone = {task: outputs(model, batch, task) for task in TASKS}
    assert not torch.allclose(alone["qa"], alone["nli"], atol=1e-3)
    together = outputs(model, batch, ["qa", "nli"])
    for index, task in enumerate(("qa", "nli")):
        torch.testing.assert_close(together[index], alone[task][index], atol=3e-5, rtol=3e-5)
    cases.move(attach(model, cases.method("prefix_tuning"), "other"), seed=2)
    with use(model, "other"), torch.no_grad():
        other = zoo.forward(model, batch)
    with use(model, ["other", "default"], ["qa", "nli"]), torch.no_grad():
        mixed = zoo.forward(model, batch)
    torch.testing.assert_close(mixed[0], other[0], atol=3e-5, rtol=3e-5)
    torch.testing.assert_close(mixed[1], alone["nli"][1], atol=3e-5, rtol=3e-5)


@FORMS
def test_beams_of_rows_keep_their_task(emits: str) -> None:
    model, _ = reading("llama", emits)
    batch = zoo.batch(model, left_padding=True)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 2, "do_sample": False, "pad_token_id": 0}
    with use(model, "default", ["nli", "qa"]):
        together = model.generate(**batch, **options)
    with use(model, "default", "qa"):
        alone = model.generate(**batch, **options)
    assert torch.equal(together[1], alone[1])


@FORMS
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_frozen_it_is_an_ordinary_adapter_with_the_same_outputs(name: str, emits: str, tmp_path: Path) -> None:
    model, adapter = reading(name, emits)
    batch = zoo.batch(model)
    for number, task in enumerate(TASKS):
        expected = outputs(model, batch, task)
        ids = adapter.parts["shared.0"].ids[number, :2]
        examples = tuple(tuple(row[row >= 0].tolist()) for row in ids)
        for how in ({"task": task}, {"examples": examples}):
            made = attach(model, Frozen("default", **how), "frozen")
            assert isinstance(made.method, PrefixTuning if emits == "prefix" else LoRA)
            torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)
            detach(model, "frozen")
    # Examples of no task that it knows: another adapter, and no gradient step.
    attach(model, Frozen("default", examples=((9, 8, 7), (11, 12), (13,))), "new")
    found = zoo.forward(model, batch)
    assert not torch.allclose(found, expected, atol=1e-3)
    save(model, "new", tmp_path / "new")
    detach(model, "new")
    detach(model)
    load(model, tmp_path / "new")
    torch.testing.assert_close(zoo.forward(model, batch), found, atol=1e-5, rtol=1e-5)


@FORMS
def test_saved_it_has_the_examples_that_it_reads_and_no_others(emits: str, tmp_path: Path) -> None:
    model, adapter = reading("llama", emits)
    batch = zoo.batch(model)
    expected = outputs(model, batch, ["qa", "nli"])
    save(model, "default", tmp_path / "both")
    kept = copy_of(adapter)
    detach(model)
    again = load(model, tmp_path / "both")
    torch.testing.assert_close(outputs(model, batch, ["qa", "nli"]), expected)
    assert again.parts["shared.0"].ids.shape == (2, 2, 6)
    detach(model)
    fresh = attach(model, HyperTuning(TASKS, emits=emits, **SIZES))
    put(fresh, kept, "a checkpoint")  # a run that is resumed has all of them
    assert fresh.parts["shared.0"].ids.shape == (2, 4, 6)
    torch.testing.assert_close(outputs(model, batch, ["qa", "nli"]), expected)


def test_examples_are_drawn_while_it_trains_and_fixed_when_it_does_not() -> None:
    model, adapter = reading("llama", "lora")
    batch, parts, seen = zoo.batch(model), list(adapter.parts.values()), set()
    fixed = outputs(model, batch, "qa")
    for step in range(6):
        adapter.method.during("forward", step, parts)
        drawn = adapter.parts["shared.0"].drawn
        assert all(len(set(each)) == 2 and max(each) < 4 for each in drawn)
        seen.add(tuple(drawn[1]))
        assert torch.equal(outputs(model, batch, "qa"), fixed)
    assert len(seen) > 2
    model.train()
    assert not torch.allclose(outputs(model, batch, "qa"), fixed, atol=1e-4)
    adapter.method.during("forward", 5, parts)
    again = outputs(model, batch, "qa")
    adapter.method.during("forward", 5, parts)
    assert torch.equal(outputs(model, batch, "qa"), again)


def test_an_encoder_decoder_reads_both_sides_and_short_tasks_what_there_is() -> None:
    model = zoo.tiny("t5")
    adapter = attach(model, HyperTuning(TASKS, **{**SIZES, "length": 20}))
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    answers = torch.tensor([[30, -100, -100], [31, 32, -100], [33, 34, 35]])
    ids = torch.tensor([[5, 6, 0], [7, 8, 9], [1, 2, 3]])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": answers, "tasks": ("qa", "nli", "qa")}
    adapter.method.prepare(model, [batch], list(adapter.parts.values()))
    ids = adapter.parts["shared.0"].ids
    assert ids[0].tolist() == [[7, 8, 9, 31, 32, -1], [-1] * 6]
    assert ids[1].tolist() == [[5, 6, 30, -1, -1, -1], [1, 2, 3, 33, 34, 35]]
    model.train()
    adapter.method.during("forward", 0, list(adapter.parts.values()))
    assert [len(each) for each in adapter.parts["shared.0"].drawn] == [1, 2]
    assert outputs(model, zoo.batch(model), ["nli", "qa"]).isfinite().all()


def test_refusals_say_what_to_do() -> None:
    model, adapter = reading("llama", "lora")
    with pytest.raises(BadInput, match=r"nli, qa, and none was named"):
        zoo.forward(model, zoo.batch(model))
    with pytest.raises(BadInput, match="Give one of the two"):
        attach(model, Frozen("default", task="qa", examples=((1,),)), "frozen")
    with pytest.raises(BadInput, match="task='nli'"):
        attach(model, Frozen("default"), "frozen")
    for labels in (torch.zeros(10, dtype=torch.long), torch.zeros(10, 9, dtype=torch.long), None):
        with pytest.raises(Refused, match="--task generation"):
            adapter.method.prepare(model, [{**rows_of(model), "labels": labels}], list(adapter.parts.values()))
    for wrong in ({"heads": 3}, {"pool": 2, "examples": 3}, {"alpha": 0.0}, {"tokens": 0}, {"emits": "adapter"}):
        with pytest.raises(BadInput):
            HyperTuning(**{"width": 8, **wrong})
    with pytest.raises(BadInput, match="sites='embed' is where it reads"):
        attach(zoo.tiny("llama"), HyperTuning(width=8, sites="embed"))
    with pytest.raises(BadInput, match="reads no examples"):
        other = zoo.tiny("llama")
        attach(other, cases.method("hyperformer"))
        attach(other, Frozen("default", examples=((1, 2),)), "frozen")
    with pytest.raises(BadInput, match="at most 32"):
        attach(zoo.tiny("llama"), HyperTuning(emits="lora", rank=33))
