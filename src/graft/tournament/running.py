"""Run one trial: train or fit the contestant, score it, measure what it costs, and leave the base as it was."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from graft import checkpoint, metrics
from graft.attach import Adapter, attach, detach, probe, use
from graft.attach.around import refuse_checkpointing
from graft.data.rows import Row
from graft.data.task import Record
from graft.data.tasks_of_rows import knowing
from graft.errors import BadInput, GraftError, Refused, sentence
from graft.memory import Peak, release
from graft.method import Method
from graft.scoring import example, score
from graft.scoring.room import positions_left
from graft.tournament import ablation, costs, transfer
from graft.tournament.arena import Arena
from graft.tournament.design import Design, Trial, training_of
from graft.tournament.entrant import Entrant
from graft.training.frozen import Trunk
from graft.training.loop import fit

NAME = "contestant"


class NotKept(BadInput):
    """An adapter could not be written: the fault of the disk, not of the contestant."""


@dataclass
class Finished:
    """What a trial gave: a result as plain values, the records of the test rows, the learning curve."""

    result: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)


def run(design: Design, trial: Trial, arena: Arena, keep: Path | None = None, arenas: Sequence[Arena] = ()) -> Finished:
    """Run a trial and never raise for what the contestant did: a trial that fails is a result with its error.

    keep: where a trained adapter is saved. arenas: those of the other data sets, for transfer. Raises NotKept.
    """
    release()  # or its peak of memory would hold what the trials before it left
    began = time.perf_counter()
    way = trial.contestant.way
    try:
        if isinstance(way, Entrant) and (why := way.refuses(arena)):
            return Finished({"status": "refused", "error": why})
        arena.begin(trial.seed)
        if isinstance(way, Method):
            finished = _tuned(design, trial, arena, way, keep, arenas)
        else:
            finished = _fitted(design, trial, arena, way)
    except NotKept:
        raise
    except GraftError as error:
        finished = Finished({"status": "failed", "error": str(error)})
    except Exception as error:  # a contestant that breaks must not end the others' comparison; its row says so
        finished = Finished({"status": "failed", "error": f"{type(error).__name__}: {error}"})
    finished.result["seconds"] = round(time.perf_counter() - began, 3)
    return finished


def entered(design: Design, arena: Arena, model: nn.Module, method: Method) -> Adapter:
    """A method on a model of the arena's base.

    Raises what `attach` raises, BadInput for rows without the tasks that it needs or longer than its virtual tokens
    leave room for, Refused where it cannot be trained as the design says.
    """
    method = knowing(method, arena.train, [*arena.data.validation, *arena.test])
    adapter = attach(model, method, NAME, tokenizer=arena.tokenizer)
    try:
        if design.training.checkpointing:
            refuse_checkpointing(adapter)
        left = positions_left(model, NAME)
        if left is not None and left[0] < arena.task.max_length and arena.longest > left[0]:
            raise BadInput(
                f"rows have up to {arena.longest} tokens, and {left[1]} virtual tokens leave them {left[0]} of the "
                f"base's positions. Use fewer virtual tokens, or cut the rows with --length."
            )
    except GraftError:
        detach(model, NAME)
        raise
    return adapter


def _tuned(design: Design, trial: Trial, arena: Arena, method: Method, keep: Path | None,
           arenas: Sequence[Arena]) -> Finished:  # fmt: skip
    model, tokenizer, task, size = arena.model, arena.tokenizer, arena.task, trial.place.size
    torch.manual_seed(trial.seed)
    try:
        adapter = entered(design, arena, model, method)
    except GraftError as error:
        return Finished({"status": "refused", "error": str(error)})
    try:
        # A final trial computes what frozen layers give by itself, so that its costs are those of a run of its own.
        options = training_of(design, trial, dict(trial.candidate).get("lr"), len(arena.rows(size)))
        with costs.Energy() as energy:
            fitted = fit(model, tokenizer, task, arena.features(size, "train"), arena.features(size, "validation"),
                         adapter, options, trunk=Trunk() if trial.final else arena.trunk)  # fmt: skip
        with use(model, NAME):
            finished = _scored(design, trial, arena, lambda rows: score(model, tokenizer, task, rows))
        finished.curve = [{**line, "seed": trial.seed} for line in fitted.history]
        if not trial.final:
            finished.result["validation_loss"] = fitted.best_loss
            return finished
        probe(model, NAME, example(model, tokenizer, task, arena.test[0]))
        finished.result["costs"] |= costs.of_adapter(arena, adapter, fitted, energy.kwh, size)
        if design.ablate:
            finished.result["ablation"] = _ablated(arena)
        if arenas:
            finished.result["transfer"] = transfer.scores(arena, NAME, arenas, headline(design, arena))
        if keep is not None and not method.in_place:
            extra = {"task": task.as_dict(), "seed": trial.seed, "data": {"sha256": arena.data.hash}}
            _keep(arena, keep, extra)
        return finished
    finally:
        detach(model, NAME)


def _keep(arena: Arena, folder: Path, extra: dict[str, Any]) -> None:
    try:
        checkpoint.save(arena.model, NAME, folder, tokenizer=arena.tokenizer, extra=extra)
    except (OSError, BadInput, SafetensorError) as error:
        raise NotKept(
            f"cannot keep the adapter in {folder}: {sentence(error)} Free some space, or compare with --no-keep."
        ) from error


def _ablated(arena: Arena) -> dict[str, Any]:
    try:
        return ablation.spans(arena, NAME)
    except Refused as error:  # there is nothing to switch off, which is no failure of the contestant
        return {"refused": str(error)}


def _fitted(design: Design, trial: Trial, arena: Arena, entrant: Entrant) -> Finished:
    way = replace(entrant, **dict(trial.candidate))
    with Peak(next(arena.model.parameters()).device) as peak, costs.Energy() as energy:
        began = time.perf_counter()
        answerer = way.fit(arena, arena.rows(trial.place.size), trial.seed)
        spent = time.perf_counter() - began

    def answered(rows: Sequence[Row]) -> list[Record]:
        given = answerer.answer(rows)
        return [{**record, "input": arena.task.input(row), "reference": arena.task.reference(row)}
                for record, row in zip(given, rows, strict=True)]  # fmt: skip

    finished = _scored(design, trial, arena, answered)
    if trial.final:
        finished.result["notes"] = answerer.notes
        finished.result["costs"] |= {
            "trainable": answerer.trainable, "stored_bytes": answerer.stored, "training_seconds": round(spent, 3),
            "peak_bytes": peak.bytes, "energy_kwh": energy.kwh,
        }  # fmt: skip
    return finished


def _scored(design: Design, trial: Trial, arena: Arena, answer: Callable[[Sequence[Row]], list[Record]]) -> Finished:
    """The validation score of a trial of the search; of a final one the test records, and how fast it answers."""
    records = answer(arena.test if trial.final else arena.held_back(trial.place.size))
    value = metrics.get(headline(design, arena)).score(records).value
    score = value if math.isfinite(value) else None
    if not trial.final:
        return Finished({"status": "done", "error": None, "validation": score})
    speed = {"rows_per_second": costs.throughput(answer, arena), "latency_ms": costs.latency(answer, arena)}
    return Finished({"status": "done", "error": None, "score": score, "costs": speed}, records)


def headline(design: Design, arena: Arena) -> str:
    """The metric that decides: the one asked for, or the task's first."""
    return design.metric or arena.task.metrics[0]
