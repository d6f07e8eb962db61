"""Several ways to adapt one base, each tuned for the same short time and scored on the same rows, beside the base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graft import checkpoint
from graft.attach import attach, detach, probe, use
from graft.data.task import Record
from graft.method import Method
from graft.scoring import Outcome, outcome, score, write_items
from graft.training.folder import ADAPTER, ITEMS
from graft.training.loop import Fit, fit
from graft.training.options import TrainingOptions
from graft.training.tuning import Study

METRICS = ("rougeL", "loss", "perplexity")


@dataclass(frozen=True)
class Contestant:
    """A method with its hyperparameters, and a peak learning rate (None: the method's own)."""

    method: Method
    rate: float | None = None


@dataclass(frozen=True)
class Entry:
    """One way that was tried: what it costs, how it scored against the base, and where its adapter is."""

    name: str
    trainable: int
    stored: int
    fit: Fit
    outcome: Outcome
    records: Sequence[Record]
    folder: Path


def demonstrate(
    study: Study,
    contestants: dict[str, Contestant],
    seconds: float,
    folder: Path,
    *,
    seed: int = 0,
    show: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[list[Record], list[Entry]]:
    """The base's records, and an entry for each method, tuned for `seconds`: one seed, no search.

    Every adapter is saved under `folder` and taken off the model again. tell: called with a line before each piece of
    work. Raises what `fit` and `probe` raise.
    """
    model, tokenizer, task = study.model, study.tokenizer, study.task
    tell(f"scoring the base on {len(study.test):,} rows")
    before = score(model, tokenizer, task, study.test, title="the base", show=show)
    train = task.features(study.train, tokenizer, train=True)
    validation = task.features(study.validation, tokenizer)
    entries = []
    for name, contestant in contestants.items():
        tell(f"tuning {name} for {seconds:.0f} s, then scoring it")
        torch.manual_seed(seed)
        adapter = attach(model, contestant.method, name.replace("_", "-"), tokenizer=tokenizer)
        options = TrainingOptions(seconds=seconds, batch=16, checks=3, seed=seed, lr=contestant.rate)
        fitted = fit(model, tokenizer, task, train, validation, adapter, options, show=show)
        probe(model, adapter.name)
        with use(model, adapter.name):
            after = score(model, tokenizer, task, study.test, title=name, show=show)
        found = outcome(METRICS, before, after, other=name, seed=seed)
        place = folder / name / ADAPTER
        extra: dict[str, Any] = {"task": task.as_dict(), "seed": seed, "scores": found.as_json(), "data": study.source}
        checkpoint.save(model, adapter.name, place, tokenizer=tokenizer, extra=extra)
        write_items(folder / name / ITEMS, {"base": before, name: after}, [r.where for r in study.test], list(METRICS))
        counts = adapter.counts
        entries.append(Entry(name, counts.trainable, counts.stored, fitted, found, after, place))
        detach(model, adapter.name)
    return before, entries
