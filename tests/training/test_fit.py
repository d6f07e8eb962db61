"""`fit`: it learns, it is exact, it survives small memory, and it says what is wrong."""

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cases
import graft
from graft import data
from graft.attach import Adapter
from graft.attach.recompute import checkpoints_activations
from graft.errors import BadInput, NotApplied, Refused
from graft.moment import Moment
from graft.training import Fit, TrainingOptions, fit
from graft.training.pace import Pace
from graft.training.resume import checkpoints, copy_of
from graft.training.trainer import GraftTrainer
from graft.training.tuning import Study, prepared, tune

Make = Callable[..., Study]
QUICK = TrainingOptions(steps=6, batch=8, lr=5e-3, checks=2)

KINDS = [("bert", "classes"), ("llama", "answers"), ("t5", "answers")]


def train(study: Study, options: TrainingOptions = QUICK, method: Any = None, **more: Any) -> tuple[Adapter, Fit]:
    """Attach and train; LoRA unless told otherwise."""
    adapter = prepared(study.model, method or graft.LoRA(rank=4, sites="all-linear"), "small", study.tokenizer, 0)
    rows = study.task.features(study.train, study.tokenizer, train=True)
    held = study.task.features(study.validation, study.tokenizer)
    where = [row.where for row in study.train]
    return adapter, fit(study.model, study.tokenizer, study.task, rows, held, adapter, options, where=where, **more)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Equal bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def close(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Equal up to the rounding of another order of summation."""
    return left.keys() == right.keys() and all(torch.allclose(left[n], right[n], atol=2e-4, rtol=1e-3) for n in left)


@pytest.mark.parametrize(("kind", "rows"), KINDS)
def test_it_learns(study: Make, kind: str, rows: str) -> None:
    made = study(kind, rows)
    _, fitted = train(made, TrainingOptions(steps=60, batch=16, lr=1e-2, checks=3))
    losses = [line["validation_loss"] for line in fitted.history if "validation_loss" in line]
    assert len(losses) == 3 and fitted.steps == 60
    assert min(losses) < 0.6 * fitted.history[0]["loss"]
    assert fitted.best_loss == min(losses)
    assert fitted.tokens > 0 and fitted.seconds > 0 and fitted.peak_memory > 10**7


def test_the_same_run_gives_the_same_bits_and_another_seed_does_not(study: Make) -> None:
    tensors = [copy_of(train(study())[0]) for _ in range(2)]
    assert same(*tensors)
    other = copy_of(train(study(), TrainingOptions(steps=6, batch=8, lr=5e-3, checks=2, seed=1))[0])
    assert not close(tensors[0], other)


@pytest.mark.parametrize(("kind", "rows"), cases.some(KINDS))
def test_arithmetic_in_bf16_gives_the_same_curve_within_its_rounding(study: Make, kind: str, rows: str) -> None:
    options = TrainingOptions(steps=12, batch=16, lr=5e-3, checks=2)
    full, half = (
        [line["loss"] for line in train(study(kind, rows, still=True), choice)[1].history if "loss" in line]
        for choice in (options, replace(options, autocast=True))
    )
    assert full != half
    assert half == pytest.approx(full, rel=0.03)


def test_the_best_step_is_what_stays(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, dict[str, Tensor]] = {}
    measure = GraftTrainer.evaluate

    def evaluate(self: GraftTrainer, *arguments: Any, **keywords: Any) -> dict[str, float]:
        seen[self.state.global_step] = copy_of(self.adapter)
        return measure(self, *arguments, **keywords)

    monkeypatch.setattr(GraftTrainer, "evaluate", evaluate)
    adapter, fitted = train(study(), TrainingOptions(steps=12, batch=8, lr=0.3, checks=6))
    losses = {line["step"]: line["validation_loss"] for line in fitted.history if "validation_loss" in line}
    assert sorted(losses) == [2, 4, 6, 8, 10, 12]
    assert fitted.best_step == min(losses, key=lambda step: losses[step]) != 12
    assert same(copy_of(adapter), seen[fitted.best_step])


@pytest.mark.parametrize(("kind", "rows"), cases.some(KINDS))
def test_dividing_a_step_changes_nothing(study: Make, kind: str, rows: str) -> None:
    # Answers differ in length: a mean of means would not be the mean over tokens.
    whole, _ = train(study(kind, rows, still=True))
    parts, fitted = train(
        study(kind, rows, still=True), TrainingOptions(steps=6, batch=8, lr=5e-3, checks=2, accumulate=3)
    )
    assert fitted.rows_at_once == 3
    assert close(copy_of(whole), copy_of(parts))


@pytest.mark.parametrize(
    "error",
    cases.some([torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError(),
                RuntimeError("alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory: you tried to allocate")]),
    ids=["cuda", "python", "cpu"],
)  # fmt: skip
def test_when_memory_runs_out_a_step_is_divided_and_the_result_is_the_same(
    study: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    whole, _ = train(study(still=True))
    compute = GraftTrainer.compute_loss
    tried: list[int] = []

    def small_memory(self: GraftTrainer, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        loss = compute(self, model, inputs, *rest, **more)
        tried.append(len(inputs["input_ids"]))
        # The first part of a step has left gradients behind when the second one fails.
        if tried[-1] > 2 and len(tried) > 3:
            raise error
        return loss

    monkeypatch.setattr(GraftTrainer, "compute_loss", small_memory)
    divided, fitted = train(study(still=True))
    assert fitted.rows_at_once == 2
    assert {8, 4, 2} <= set(tried)
    assert close(copy_of(whole), copy_of(divided))


def test_a_row_that_does_not_fit_stops_with_what_to_do(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any, **__: Any) -> Any:
        raise MemoryError("nothing left")

    monkeypatch.setattr("graft.memory.kept_bytes", lambda forward: 0)
    monkeypatch.setattr(GraftTrainer, "compute_loss", no_memory)
    with pytest.raises(Refused, match=r"single row.*--length"):
        train(study())


def test_other_errors_are_not_taken_for_a_lack_of_memory(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("graft.memory.kept_bytes", lambda forward: 0)
    monkeypatch.setattr(GraftTrainer, "compute_loss", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(study())


def test_the_first_forward_is_planned_within_the_free_memory(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.memory.available", lambda device: 200_000)
    _, fitted = train(study())
    assert 1 <= fitted.rows_at_once < 8


def test_a_loss_that_is_no_number_names_the_rows(study: Make) -> None:
    made = study()
    word = made.tokenizer.convert_tokens_to_ids("moss")
    with torch.no_grad():
        made.model.get_input_embeddings().weight[word] = math.inf  # type: ignore[operator]
    guilty = {row.where for row in made.train if "moss" in row["text"]}
    with pytest.raises(Refused, match="not a finite number at step 1: these rows give it by themselves") as caught:
        train(made, TrainingOptions(steps=2, batch=64, lr=1e-3))
    named = {row.where for row in made.train if f"{row.where}" in str(caught.value).replace(",", " ").split()}
    assert named and named <= guilty
    assert f"and {len(guilty) - 8} more" in str(caught.value) or named == guilty


def test_tensors_that_do_not_move_are_an_error(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = GraftTrainer.compute_loss
    monkeypatch.setattr(GraftTrainer, "compute_loss", lambda *args, **more: compute(*args, **more) * 0)
    with pytest.raises(
        NotApplied, match=r"after 3 optimizer steps none of the .* has moved; their gradients are all zero"
    ):
        train(study())


def test_a_warm_up_that_begins_at_zero_is_not_taken_for_standing_still(study: Make) -> None:
    _, fitted = train(study(), TrainingOptions(steps=6, batch=8, lr=1e-3, warmup=0.9, checks=1))
    assert fitted.steps == 6


def test_the_methods_moments_come_once_per_step(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def during(self: Any, phase: str, step: int, parts: Any) -> Tensor | None:
        seen.append((phase, step))
        return 100 + sum((p**2).sum() for part in parts for p in part.parameters()) if phase == "loss" else None

    plain = train(study())[1].history[0]["loss"]
    monkeypatch.setattr(graft.LoRA, "during", during)
    _, fitted = train(study(), TrainingOptions(steps=3, batch=8, lr=5e-3, accumulate=4, checks=1))
    phases = ("forward", "loss", "gradients", "stepped")
    assert seen == [(phase, step) for step in range(3) for phase in phases]
    assert fitted.history[0]["loss"] > plain + 100


def test_a_penalty_of_a_method_is_logged_and_lowered(study: Make) -> None:
    def run(penalty: float) -> tuple[float, float, float]:
        made = study("bert", "classes", still=True)
        adapter = prepared(made.model, graft.AdaLoRA(2, 2, penalty=penalty), "small", made.tokenizer, 0)

        def skew() -> float:
            found = graft.AdaLoRA(2, 2, penalty=1.0).during("loss", Moment(0, 0.0, 0.0), list(adapter.parts.values()))
            return float(found.detach())  # type: ignore[union-attr]

        before = skew()
        rows = made.task.features(made.train, made.tokenizer, train=True)
        fitted = fit(made.model, made.tokenizer, made.task, rows, [], adapter, replace(QUICK, steps=12, lr=3e-2))
        return fitted.history[0]["loss"], before, skew()

    (plain, before, free), (loss, _, held) = run(0.0), run(2.0)
    assert before > 1 and loss == pytest.approx(plain + 2 * before, rel=1e-5)
    assert held < 0.6 * free


def test_the_regularizer_of_a_fusion_is_in_the_loss_of_a_run(study: Make) -> None:
    def first_loss(penalty: float) -> tuple[float, float]:
        made = study("bert", "classes", still=True)
        for seed, name in enumerate(("one", "two")):
            cases.move(prepared(made.model, graft.Pfeiffer(4), name, made.tokenizer, seed), seed=seed)
        fusion = graft.AdapterFusion(("one", "two"), penalty=penalty)
        adapter = prepared(made.model, fusion, "small", made.tokenizer, 0)
        cases.move(adapter, by=0.1)
        off = sum((t - torch.eye(len(t))).square().sum() for name, t in copy_of(adapter).items() if name.endswith(".V"))
        rows = made.task.features(made.train, made.tokenizer, train=True)
        fitted = fit(made.model, made.tokenizer, made.task, rows, [], adapter, replace(QUICK, steps=1, batch=64))
        return fitted.history[0]["loss"], float(off)

    (plain, off), (loss, _) = first_loss(0.0), first_loss(0.5)
    assert off > 1 and loss == pytest.approx(plain + 0.5 * off, rel=1e-5)


def test_a_method_prepares_itself_on_training_batches(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def prepare(self: Any, model: Any, batches: Any, parts: Any) -> None:
        rows.extend(len(batch["input_ids"]) for batch in batches)

    monkeypatch.setattr(graft.LoRA, "prepare", prepare)
    made = study()
    train(made)
    assert sum(rows) == len(made.train)


def test_time_ends_a_run_and_checks_are_spread_over_it(study: Make) -> None:
    _, fitted = train(study(), TrainingOptions(seconds=0.4, batch=8, lr=5e-3, checks=4))
    checks = [line for line in fitted.history if "validation_loss" in line]
    assert 0.4 <= fitted.seconds < 2 and fitted.steps >= 4
    assert 2 <= len(checks) <= 4 and checks[-1]["step"] == fitted.steps
    rates = [line["learning_rate"] for line in fitted.history if "learning_rate" in line]
    assert rates[-1] < 0.5 * max(rates) <= 0.5 * 5e-3


def test_patience_ends_a_run(study: Make) -> None:
    _, fitted = train(study(), TrainingOptions(steps=60, batch=8, lr=0.5, checks=30, patience=1))
    assert fitted.stopped_early and fitted.steps < 60


PRUNED = {"init_rank": 4, "target_rank": 1, "interval": 1}
LOUD = TrainingOptions(steps=20, batch=8, lr=1.0, schedule="constant", checks=20, patience=3)


@pytest.mark.parametrize(
    "method", [graft.AdaLoRA(**PRUNED), graft.AdaLoRA(**PRUNED) + graft.LoRAFA(rank=1, sites="o")], ids=str
)
def test_no_step_is_the_best_before_a_method_is_pruned(study: Make, method: Any) -> None:
    adapter, fitted = train(study(), LOUD, method)
    losses = {line["step"]: line["validation_loss"] for line in fitted.history if "validation_loss" in line}
    assert min(losses, key=lambda step: losses[step]) <= 15 < fitted.best_step <= fitted.steps
    assert fitted.settled and fitted.best_loss == min(losses[step] for step in losses if step > 15)
    parts = [part for part in adapter.parts.values() if hasattr(part, "lam")]
    assert sum(int(part.lam.count_nonzero()) for part in parts) == len(parts)


def test_a_schedule_longer_than_the_run_is_told(study: Make, tmp_path: Path) -> None:
    for total, told in ((100, True), (10, False)):
        folder, finished = tmp_path / str(total), None
        for _ in range(2):  # the second time it is only put back
            made = study()
            adapter = prepared(made.model, graft.AdaLoRA(**PRUNED, total_steps=total), "small", made.tokenizer, 0)
            found = tune(made, adapter, replace(QUICK, steps=10), folder, resume_from=finished)
            assert any("still being pruned" in note for note in found.notes) is told
            assert not told or found.fit.best_step == 10  # what there is in the end
            finished = checkpoints(folder / "checkpoints")[-1]


def test_checkpointed_activations_give_the_same(study: Make) -> None:
    plain, _ = train(study("llama", "answers", still=True))
    made = study("llama", "answers", still=True)
    again, _ = train(made, TrainingOptions(steps=6, batch=8, lr=5e-3, checks=2, checkpointing=True))
    assert close(copy_of(plain), copy_of(again))
    assert not checkpoints_activations(made.model)


def test_autocast_keeps_the_tensors_in_fp32(study: Make) -> None:
    adapter, fitted = train(study(), TrainingOptions(steps=4, batch=8, lr=1e-3, autocast=True), graft.TopLayers(k=1))
    assert all(p.dtype == torch.float32 for p in adapter.parameters())
    assert fitted.steps == 4


def test_the_model_is_left_as_it_was(study: Make) -> None:
    made = study("llama", "answers")
    base = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    cached, training = made.model.config.use_cache, made.model.training  # type: ignore[union-attr]
    handler = signal.getsignal(signal.SIGINT)
    train(made)
    assert made.model.config.use_cache is cached and made.model.training is training  # type: ignore[union-attr]
    assert signal.getsignal(signal.SIGINT) is handler
    graft.detach(made.model, "small")
    assert same(base, dict(made.model.state_dict()))


@pytest.mark.parametrize("method", [graft.PrefixTuning(tokens=3), graft.PromptTuning(tokens=3), graft.TopLayers(k=1),
                                    graft.LoRA(rank=2) + graft.PrefixTuning(tokens=2)])  # fmt: skip
def test_every_kind_of_method_trains(study: Make, method: Any) -> None:
    adapter, fitted = train(study("llama", "answers"), TrainingOptions(steps=4, batch=8, checks=1), method)
    assert fitted.steps == 4
    assert graft.attach is not None and adapter.method == method


def test_each_term_of_a_sum_has_its_own_rate(study: Make) -> None:
    from graft.training.optimization import groups

    made = study("llama", "answers")
    both = graft.LoRA(rank=2) + graft.PrefixTuning(tokens=2)
    adapter = prepared(made.model, both, "both", made.tokenizer, 0)
    rates = {group["lr"] for group in groups(adapter, TrainingOptions())}
    assert rates == {graft.LoRA.learning_rate, graft.PrefixTuning.learning_rate}
    found = groups(adapter, TrainingOptions(weight_decay=0.1, lr=1e-3))
    assert {group["lr"] for group in found} == {
        1e-3,
        1e-3 * graft.PrefixTuning.learning_rate / graft.LoRA.learning_rate,
    }
    assert all((group["weight_decay"] > 0) == (p.dim() > 1) for group in found for p in group["params"])
    grouped = [p for group in found for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(adapter.parameters())


def test_ctrl_c_saves_and_the_run_goes_on_from_there(
    study: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = TrainingOptions(steps=12, batch=8, lr=5e-3, checks=2)
    whole, reference = train(study(), options, folder=tmp_path / "whole")
    end = Pace.end

    def pressed(self: Pace) -> None:
        end(self)
        presses.append(1)
        if len(presses) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    presses: list[int] = []
    monkeypatch.setattr(Pace, "end", pressed)
    with pytest.raises(KeyboardInterrupt, match="saved at step 4; --resume"):
        train(study(), options, folder=tmp_path / "cut")
    from graft.training import checkpoints

    resumed, fitted = train(
        study(), options, folder=tmp_path / "cut", resume_from=checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    )
    assert same(copy_of(whole), copy_of(resumed))
    assert [line.get("loss") for line in fitted.history] == [line.get("loss") for line in reference.history]


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"steps": 0}, {"batch": 0}, {"lr": 0}, {"warmup": 1.0}, {"accumulate": 64}, {"patience": -1},
     {"steps": 3, "seconds": 3.0}],
)  # fmt: skip
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"{next(iter(wrong))}"):
        TrainingOptions(**wrong)


def test_no_rows_and_no_room_are_found_before_training(
    study: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = study()
    adapter = prepared(made.model, graft.LoRA(rank=2), "small", made.tokenizer, 0)
    with pytest.raises(BadInput, match="no rows to train on"):
        fit(made.model, made.tokenizer, made.task, [], [], adapter)
    rows = made.task.features(made.train, made.tokenizer)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        fit(made.model, made.tokenizer, made.task, rows, [], adapter, folder=tmp_path / "file" / "run")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(BadInput, match="MiB are free and the run needs up to"):
        fit(made.model, made.tokenizer, made.task, rows, [], adapter, folder=tmp_path / "run")


def test_language_modeling_blocks_train(home: Path, study: Make) -> None:
    made = study("llama", "answers")
    found = data.load([{"text": row["prompt"]} for row in made.train], task="language_modeling", splits="train")
    task: Any = data.fit(found, made.tokenizer, made.model.config, 16)
    adapter = prepared(made.model, graft.LoRA(rank=2), "text", made.tokenizer, 0)
    features = task.features(found.train, made.tokenizer, train=True)
    fitted = fit(made.model, made.tokenizer, task, features, [], adapter, TrainingOptions(steps=4, batch=8, lr=1e-3))
    assert fitted.steps == 4 and fitted.best_step is None
