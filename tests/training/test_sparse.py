"""Sparse methods in a real run: masks chosen on its rows, phases of training, resuming, what is stored."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import graft
import small
import zoo
from graft.checkpoint import load, save
from graft.method import Method, Moment
from graft.sparse import Pruned, Sparse
from graft.training import TrainingOptions, fit
from graft.training.resume import checkpoints, copy_of, tensors_of
from graft.training.tuning import prepared

RUNS = [
    graft.FishMask(density=0.05), graft.DiffPruning(density=0.1, burn_in=3), graft.ChildTuning("F"), graft.Mixout(),
    graft.SecondOrderMask(density=0.05, together=True), graft.ChildTuning("D"),
    graft.ChildPruning(density=0.1, every=1, burn_in=3), graft.LotterySparse(density=0.1, full=3),
]  # fmt: skip

# Methods that choose on training rows, or begin there.
CHOOSING = [
    graft.FishMask(density=0.05), graft.LadderSide(reduction=4, init="fisher"), graft.ChildTuning("D"),
    graft.SecondOrderMask(density=0.05), graft.SparseAdapter(4, score="snip"),
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    small.base(folder, "bert")
    small.classes(folder)
    return folder


@pytest.mark.parametrize(
    "method", cases.some(RUNS, 4), ids=lambda method: f"{method.slug()}{getattr(method, 'variant', '')}"
)
def test_resumed_is_uninterrupted_and_stored_is_trained(home: Path, tmp_path: Path, method: Method) -> None:
    options = TrainingOptions(steps=6, batch=8, lr=5e-3, checks=3)

    def run(folder: Path, resume_from: Path | None = None) -> tuple[Any, Any]:
        made = small.study_of(home)
        adapter = prepared(made.model, method, "small", made.tokenizer, 0)
        rows = made.task.features(made.train, made.tokenizer, train=True)
        fit(made.model, made.tokenizer, made.task, rows, [], adapter, options, folder=folder, resume_from=resume_from)
        return made.model, adapter

    model, whole = run(tmp_path / "whole")
    (tmp_path / "half").mkdir()
    half = checkpoints(tmp_path / "whole" / "checkpoints")[0]
    assert half.name == "step-00000004"
    _, resumed = run(tmp_path / "half", half)
    wanted, found = tensors_of(whole), tensors_of(resumed)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    if parts := [part for part in whole.parts.values() if isinstance(part, Sparse)]:
        assert len({len(part.at) / part.site.weight.numel() for part in parts}) > 1  # chosen over all matrices at once
    model.eval()
    batch = {"input_ids": torch.arange(5, 13)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    save(model, "small", tmp_path / "kept")
    other = small.study_of(home).model
    load(other, tmp_path / "kept")
    torch.testing.assert_close(other.eval()(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", cases.some(CHOOSING, 2), ids=lambda method: method.slug())
def test_a_run_prepares_what_it_trains_and_once(home: Path, tmp_path: Path, method: Method) -> None:
    def trained(made: Any, adapter: Any, lr: float = 5e-3) -> dict[str, torch.Tensor]:
        options = TrainingOptions(steps=4, batch=8, lr=lr, schedule="constant")
        rows = made.task.features(made.train, made.tokenizer, train=True)
        fit(made.model, made.tokenizer, made.task, rows, [], adapter, options)
        return copy_of(adapter)

    made = small.study_of(home)
    first = prepared(made.model, method, "first", made.tokenizer, 0)
    start = copy_of(first)
    before = trained(made, first)
    assert any(not torch.equal(start[name], before[name]) for name in start)
    beside = trained(made, prepared(made.model, method, "second", made.tokenizer, 1))
    now = copy_of(first)
    assert all(torch.equal(now[name], before[name]) for name in before)
    single = small.study_of(home)
    alone = trained(single, prepared(single.model, method, "second", single.tokenizer, 1))
    assert all(torch.equal(beside[name], alone[name]) for name in alone)
    save(made.model, "first", tmp_path / "kept")
    other = small.study_of(home)
    for again in (trained(made, first, lr=1e-9), trained(other, load(other.model, tmp_path / "kept"), lr=1e-9)):
        assert again.keys() == before.keys()
        for name, tensor in before.items():
            torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("method", "with_dropout"), [(graft.FishMask(density=0.05, samples=8), False),
                                                      (graft.SecondOrderMask(density=0.05, batches=2), True),
                                                      (graft.ChildTuning("D"), True)])  # fmt: skip
def test_dropout_while_choosing_is_as_the_authors_have_it(home: Path, method: Method, with_dropout: bool) -> None:
    def chosen(seed: int) -> list[list[int]]:
        made = small.study_of(home)
        parts = list(prepared(made.model, method, "small", made.tokenizer, 0).parts.values())
        rows = made.task.features(made.train[:16], made.tokenizer, train=True)
        batches = [made.task.inputs(made.task.collate(rows[at : at + 8], made.tokenizer)) for at in (0, 8)]
        made.model.train(not with_dropout)
        torch.manual_seed(seed)
        method.prepare(made.model, batches, parts)
        return [part.at.tolist() for part in parts if isinstance(part, Sparse)]

    assert (chosen(0) != chosen(1)) == with_dropout


@pytest.mark.parametrize("method", [graft.LotterySparse(density=0.1), graft.ChildPruning(density=0.1)])
def test_phases_are_shares_of_the_run(home: Path, monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    fixed, few, during = [], [], type(method).during

    def watched(self: Method, phase: Any, step: Any, parts: Any) -> Any:
        found = during(self, phase, step, parts)
        pruned = [part for part in parts if isinstance(part, Pruned)]
        if phase == "forward":
            fixed.append(all(int(part.mask.sum()) == part.entries for part in pruned))
            few.append(all(int((part.delta * part.mask).count_nonzero()) <= part.entries for part in pruned))
        return found

    monkeypatch.setattr(type(method), "during", watched)
    made = small.study_of(home)
    adapter = prepared(made.model, method, "small", made.tokenizer, 0)
    rows = made.task.features(made.train, made.tokenizer, train=True)
    fit(made.model, made.tokenizer, made.task, rows, [], adapter, TrainingOptions(steps=20, batch=8, lr=5e-3))
    assert fixed == [step >= 10 for step in range(20)]
    pruned = (0, 2, 4, 6, 8) if isinstance(method, graft.ChildPruning) else (0,)
    assert few == [step in pruned or step >= 10 for step in range(20)]


@pytest.mark.parametrize("method", [graft.LotterySparse(density=0.1, full=3, search=0.01),
                                    graft.ChildPruning(density=0.1, burn_in=3, search=0.01),
                                    graft.DiffPruning(density=0.1, burn_in=3, search=0.01)],
                         ids=lambda method: method.slug())  # fmt: skip
def test_steps_of_the_search_are_short_and_those_of_the_kept_entries_long(method: Method) -> None:
    model, rate = zoo.tiny("bert").train(), 1e-2
    adapter = graft.attach(model, method, head=False)
    parts = [part for part in adapter.parts.values() if isinstance(part, Pruned)]
    optimizer = torch.optim.AdamW(method.groups(list(adapter.parts.values())), lr=rate, weight_decay=0.0)
    moved = []
    for step in range(5):
        method.during("forward", Moment(step, step / 10, max(0, step - 1) / 10), list(adapter.parts.values()))
        before = [part.settled().detach() for part in parts]
        optimizer.zero_grad()
        zoo.forward(model, zoo.batch(model)).square().mean().backward()
        optimizer.step()
        steps = [part.settled().detach() - old for part, old in zip(parts, before, strict=True)]
        moved.append(max(float(each.abs().max()) for each in steps))
    assert all(0.5 * method.search * rate < step < 1.1 * method.search * rate for step in moved[:3])
    assert all(0.3 * rate < step < 4 * rate for step in moved[3:])
