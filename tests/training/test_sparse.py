"""Sparse methods in a real run: masks chosen on its rows, phases of training, resuming, what is stored."""

from pathlib import Path

import pytest
import torch

import graft
import small
from graft.checkpoint import load, save
from graft.method import Method
from graft.sparse import Sparse
from graft.training import TrainingOptions, fit
from graft.training.resume import checkpoints, tensors_of
from graft.training.tuning import prepared

RUNS = [
    graft.FishMask(density=0.05), graft.SecondOrderMask(density=0.05, together=True), graft.ChildTuning("D"),
    graft.ChildTuning("F"), graft.ChildPruning(density=0.1, every=1, burn_in=3),
    graft.LotterySparse(density=0.1, full=3), graft.DiffPruning(density=0.1, burn_in=3), graft.Mixout(),
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    small.base(folder, "bert")
    small.classes(folder)
    return folder


@pytest.mark.parametrize("method", RUNS, ids=lambda method: f"{method.slug()}{getattr(method, 'variant', '')}")
def test_resumed_is_uninterrupted_and_stored_is_trained(home: Path, tmp_path: Path, method: Method) -> None:
    options = TrainingOptions(steps=6, batch=8, lr=5e-3, checks=3)

    def run(folder: Path, resume_from: Path | None = None) -> tuple[object, object]:
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
    if parts := Sparse.of(model, method):
        assert len({len(part.at) / part.site.weight.numel() for part in parts}) > 1  # chosen over all matrices at once
    model.eval()
    batch = {"input_ids": torch.arange(5, 13)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    save(model, "small", tmp_path / "kept")
    other = small.study_of(home).model
    load(other, tmp_path / "kept")
    torch.testing.assert_close(other.eval()(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)
