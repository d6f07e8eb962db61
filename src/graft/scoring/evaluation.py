"""`evaluate`: a base, or an adapter against its base, on rows; what the adapter was trained on is not scored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from graft import checkpoint, data, metrics
from graft.attach import require, use
from graft.data import DataSets, Row
from graft.data.rows import some
from graft.data.sources import read_source
from graft.data.task import Record, Task
from graft.data.tasks import from_dict
from graft.data.tasks_of_rows import check_tasks
from graft.data.templates import DEFAULT
from graft.errors import BadInput
from graft.loading import Base, Precision, Source, kept_with, load_base
from graft.scoring.forgetting import forgetting, general_text, measurable
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
    then only those that were held out, also from every adapter that is part of it. Raises BadInput when there are none.
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
    asked = [found.splits.get(split, ())] if split else [found.test, found.validation]
    if not any(asked):
        raise BadInput(f"{source} has no {split or 'test or validation'} rows; it has {', '.join(found.splits)}.")
    seen = seen_by(tuned.get("others") or (), source, how) if split != "train" else set()
    left = [[row for row in rows if row.where not in seen] for rows in asked]
    if not any(left):
        raise BadInput(
            f"every row of {source} to score is one that an adapter which is part of this one was trained on. Score on "
            "other rows, or combine adapters tuned with one --seed, which leave out the same ones."
        )
    if seen:
        notes.append("rows that an adapter which is part of this one was trained on are left out")
    rows = next(tuple(rows) for rows in left if rows)
    return found, rows, notes


def seen_by(others: Iterable[dict[str, Any]], source: str, how: dict[str, Any]) -> set[str]:
    """Where the rows of `source` are that adapters were trained on. others: what is kept of the data of each."""
    seen: set[str] = set()
    for data_of in others:
        again = data.load(source, splits=tuple(data_of["splits"]), seed=data_of["seed"], **how)
        if again.hash == data_of["sha256"]:
            seen |= {row.where for row in again.train}
        seen |= seen_by(data_of.get("others") or (), source, how)
    return seen


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
    general: str | None = None,
    force: bool = False,
    show: bool = False,
    **how: Any,
) -> Evaluation:
    """Score the base at `source`, and the adapter in `folder` beside it, on rows from `rows_from`.

    The adapter's own task is used, with its prompts and labels. limit: rows at most, chosen by the seed. general: see
    `graft.scoring.general_text`. how: see `graft.data.load`. Raises what loading raises, and NotApplied for an adapter
    that does nothing.
    """
    if metric:
        metrics.get(metric)
    text = general_text(general) if folder is not None else None
    extra = kept_with(folder) if folder is not None else {}
    stored = extra.get("task")
    how = _as_tuned(how, stored) if stored else how
    found, rows, notes = held_out(rows_from, dict(extra.get("data") or {}), split, seed, **how)
    task = from_dict(stored) if stored else data.fit(found, source.tokenizer, source.config, length)
    rows = some(rows, limit, seed)
    base = load_base(source, task, dtype=dtype, device=device, seed=extra.get("seed", seed))
    notes += base.notes
    text = text and measurable(text, base.model, base.tokenizer, notes)
    if metric and metric not in task.metrics:
        check_metric(metric, task.kind, task.metrics, _score(base, task, rows[:1], None, batch, show=False))
    name = _attach(base, folder, force, task, rows[0]) if folder is not None else None
    if name is not None and (tasks := require(base.model, name).adapters[name].tasks):
        check_tasks(tasks, rows)
    systems = {"base": _score(base, task, rows, None, batch, show)}
    if name is None:
        return Evaluation(task, rows, systems, _alone(task, systems["base"], metric, seed), None, None, notes)
    systems["adapter"] = _score(base, task, rows, name, batch, show)
    against = outcome(task.metrics, systems["base"], systems["adapter"], metric=metric, seed=seed)
    forgot = forgetting(base.model, base.tokenizer, name, text, show=show) if text else None
    return Evaluation(task, rows, systems, {}, against, forgot, notes)


def _alone(task: Task, records: Sequence[Record], metric: str | None, seed: int) -> dict[str, Interval]:
    """The scores of one system, the metric that was asked for first."""
    chosen = [metrics.get(name) for name in dict.fromkeys([*([metric] if metric else []), *task.metrics])]
    return {each.name: interval(each, each.statistics(records), seed=seed) for each in chosen}


def _as_tuned(how: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """How to read rows for a stored task; its template only where that reads other columns than the prompt."""
    own = task["template"] if task["kind"] == "generation" and task["template"] != DEFAULT else None
    return {**how, "task": how.get("task") or task["kind"], "template": how.get("template") or own}


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
