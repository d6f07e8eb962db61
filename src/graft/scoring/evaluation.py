"""`evaluate`: a base, or an adapter against its base, on rows; what the adapter was trained on is not scored."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from graft import checkpoint, data, metrics
from graft.attach import use
from graft.data import DataSets, Row
from graft.data.sources import read_source
from graft.data.task import Record, Task
from graft.data.tasks import from_dict
from graft.data.templates import DEFAULT
from graft.errors import BadInput, Refused
from graft.loading import Base, Precision, Source, kept_with, load_base
from graft.scoring.forgetting import forgetting, general_rows, not_for
from graft.scoring.outcome import Outcome, check_metric, outcome
from graft.scoring.score import example, score
from graft.statistics import Interval, interval

Split = Literal["test", "validation", "train"]


@dataclass(frozen=True)
class Evaluation:
    """What was found: `scores` of a base alone, or `outcome` of an adapter against it, and what it forgot."""

    task: Task
    rows: Sequence[Row]
    systems: dict[str, list[Record]]
    scores: dict[str, Interval]
    outcome: Outcome | None
    forgot: Outcome | None
    notes: list[str]


def held_out(
    source: str, tuned: dict[str, Any], split: Split | None, seed: int, **how: Any
) -> tuple[DataSets, Sequence[Row], list[str]]:
    """The rows to score: of `split`, by default the test rows, else the validation rows.

    Of rows without splits these are all rows, unless an adapter was tuned on them (`tuned`: what it keeps of its data):
    then only those that were held out. Raises BadInput when there are none.
    """
    shares = tuple(tuned.get("splits") or (0.8, 0.1, 0.1))
    found = data.load(source, splits=shares, seed=tuned.get("seed", seed), **how)
    notes = list(found.notes)
    if list(read_source(source)) == [""] and split is None:
        if found.hash == tuned.get("sha256"):
            notes.append("these are the rows that the adapter was tuned on: scored on those held out then")
        else:
            found = data.load(source, splits="test", **how)
            notes = list(found.notes)
    rows = found.splits.get(split or "", ()) or (() if split else found.test or found.validation)
    if not rows:
        raise BadInput(f"{source} has no {split or 'test or validation'} rows; it has {', '.join(found.splits)}.")
    return found, rows, notes


def evaluate(
    source: Source,
    folder: str | None,
    rows_from: str,
    *,
    split: Split | None = None,
    limit: int = 0,
    batch: int = 32,
    dtype: Precision = "auto",
    device: str = "auto",
    seed: int = 0,
    length: int | None = None,
    metric: str | None = None,
    general_text: str | None = None,
    force: bool = False,
    show: bool = False,
    **how: Any,
) -> Evaluation:
    """Score the base at `source`, and the adapter in `folder` beside it, on rows from `rows_from`.

    The adapter's own task is used, with its prompts and labels. limit: rows at most, chosen by the seed. how: see
    `graft.data.load`. Raises what loading raises, and NotApplied for an adapter that does nothing.
    """
    if metric:
        metrics.get(metric)
    general = general_rows(general_text) if general_text else None
    extra = kept_with(folder) if folder is not None else {}
    tuned = dict(extra.get("data") or {})
    if stored := extra.get("task"):
        template = stored.get("template") if stored["kind"] == "generation" else None
        how = {**how, "task": how.get("task") or stored["kind"], "template": how.get("template") or _needed(template)}
    found, rows, notes = held_out(rows_from, tuned, split, seed, **how)
    task = from_dict(stored) if stored else data.fit(found, source.tokenizer, source.config, length)
    if limit and len(rows) > limit:
        rows = [rows[at] for at in sorted(random.Random(seed).sample(range(len(rows)), limit))]
    base = load_base(source, task, dtype=dtype, device=device, seed=extra.get("seed", seed))
    notes += base.notes
    if general is not None and (why := not_for(base.model)):
        raise Refused(why)
    if metric and metric not in task.metrics:
        check_metric(metric, task.kind, task.metrics, _score(base, task, rows[:1], None, batch, show=False))
    name = _attach(base, folder, force, task, rows[0]) if folder is not None else None
    systems = {"base": _score(base, task, rows, None, batch, show)}
    measured, against, forgot = {}, None, None
    if name is None:
        for each in dict.fromkeys([*([metric] if metric else []), *task.metrics]):
            chosen = metrics.get(each)
            measured[each] = interval(chosen, chosen.statistics(systems["base"]), seed=seed)
    else:
        systems["adapter"] = _score(base, task, rows, name, batch, show)
        against = outcome(task.metrics, systems["base"], systems["adapter"], metric=metric, seed=seed)
        if general is not None:
            forgot = forgetting(base.model, base.tokenizer, name, general, show=show)
    return Evaluation(task, rows, systems, measured, against, forgot, notes)


def _needed(template: str | None) -> str | None:
    """A template that reads columns of its own; the usual one goes with rows that have a prompt."""
    return None if template in (None, DEFAULT) else template


def _attach(base: Base, folder: str | Path, force: bool, task: Task, row: Row) -> str:
    batch = example(base.model, base.tokenizer, task, row)
    return checkpoint.load(base.model, folder, force=force, batch=batch).name


def _score(base: Base, task: Task, rows: Sequence[Row], name: str | None, batch: int, show: bool) -> list[Record]:
    title = "scoring the adapter" if name else "scoring the base"
    model: nn.Module = base.model
    if name is None and "_grafted" not in model.__dict__:
        return score(model, base.tokenizer, task, rows, batch=batch, title=title, show=show)
    with use(model, name):
        return score(model, base.tokenizer, task, rows, batch=batch, title=title, show=show)
