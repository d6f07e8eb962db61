"""`tune`: from a base and rows to an adapter on disk and the answer to whether it helped.

Everything is done in one order that keeps a run honest: the data is checked before anything is loaded, the base is
scored before it is touched, both are scored on the same rows, and the adapter is probed before it is saved.
"""

import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graft import checkpoint, metrics
from graft.attach import Adapter, attach, probe, use
from graft.data.rows import Row
from graft.data.task import Record, Task
from graft.errors import NotApplied
from graft.method import Method
from graft.scoring import (
    GeneralText,
    Outcome,
    check_metric,
    example,
    forgetting,
    majority,
    outcome,
    score,
    write_items,
)  # fmt: skip
from graft.training import folder as runs
from graft.training.loop import Fit, fit
from graft.training.options import TrainingOptions
from graft.training.ready import ready
from graft.training.trainer import Objective

SAMPLES = 3
FAR = 2.0  # nats


@dataclass(frozen=True)
class Study:
    """What a run works on. `fresh`: tensors of the base that start at random; `source`: where the rows came from."""

    model: nn.Module
    tokenizer: Any
    task: Task
    train: Sequence[Row]
    validation: Sequence[Row]
    test: Sequence[Row]
    fresh: Sequence[str] = ()
    source: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuned:
    """What came out. `floor`: the adapter against always giving the most frequent label, where the base's head is
    untrained; `forgot`: on general text; `samples`: input, reference, base, adapter."""

    adapter: Adapter
    fit: Fit
    outcome: Outcome
    floor: Outcome | None
    forgot: Outcome | None
    samples: list[dict[str, Any]]
    notes: list[str]
    folder: Path


def tune(
    study: Study,
    adapter: Adapter,
    options: TrainingOptions,
    folder: Path,
    *,
    resume_from: Path | None = None,
    metric: str | None = None,
    general: GeneralText | None = None,
    extra: dict[str, Any] | None = None,
    begin: Callable[[], None] = lambda: None,
    show: bool = False,
) -> Tuned:
    """Score the base, train the adapter, score it on the same rows, and write everything to `folder`.

    Scored are the test rows, or the validation rows where there are none (a note says so). general: what forgetting is
    measured on. extra: facts to keep with the adapter. begin: see `fit`. The adapter is on disk before anything else is
    done with it. Raises what `fit` raises, BadInput before training for a metric that does not serve, and NotApplied
    when the trained adapter does not change the output, which is then not kept.
    """
    model, tokenizer, task, name = study.model, study.tokenizer, study.task, adapter.name
    scored = study.test or study.validation
    train, run = task.features(study.train, tokenizer, train=True), {**study.source, **(extra or {})}
    ready(task, train, adapter, options, folder, resume_from, run)  # before the base is scored, which takes its time
    with use(model, None):
        before = score(model, tokenizer, task, scored, title="scoring the base", show=show)
    check_metric(metric, task.kind, task.metrics, before)
    fitted = fit(
        model, tokenizer, task, train, task.features(study.validation, tokenizer), adapter, options, folder=folder,
        resume_from=resume_from, where=[row.where for row in study.train], run=run, begin=begin, show=show,
        objective=_objective(study, options),
    )  # fmt: skip
    about = {**(extra or {}), **_extra(study, options, fitted)}
    target = _saved(study, name, folder / runs.ADAPTER, scored[0], about)
    with use(model, name):
        after = score(model, tokenizer, task, scored, title="scoring the adapter", show=show)
    found = outcome(task.metrics, before, after, metric=metric, seed=options.seed)
    forgot = forgetting(model, tokenizer, name, general, show=show) if general else None
    about |= {"scores": found.as_json(), "forgetting": forgot.as_json() if forgot else None}
    checkpoint.save(model, name, target, tokenizer=tokenizer, extra=about)
    where = [row.where for row in scored]
    write_items(folder / runs.ITEMS, {"base": before, "adapter": after}, where, list(found.comparisons))
    return Tuned(
        adapter, fitted, found, _floor(study, before, after, options.seed), forgot,
        _samples(before, after, options.seed), _notes(study, adapter, options, fitted), target,
    )  # fmt: skip


def prepared(study_model: nn.Module, method: Method, name: str, tokenizer: Any, seed: int) -> Adapter:
    """Attach a method with its random start from a seed."""
    torch.manual_seed(seed)
    return attach(study_model, method, name, tokenizer=tokenizer)


def _objective(study: Study, options: TrainingOptions) -> Objective | None:
    """The metric that is trained on as a number to lower, around 0 to 1; None for the loss."""
    if options.objective == "loss":
        return None
    metric = metrics.get(options.objective)
    sign = -0.01 if metric.higher_is_better else 0.01

    def lowered(items: Sequence[int]) -> float:
        records = score(study.model, study.tokenizer, study.task, [study.train[item] for item in items])
        value = metric.score(records).value
        return sign * value if math.isfinite(value) else 0.0  # undefined on these rows: no slope

    return lowered


def _saved(study: Study, name: str, target: Path, row: Row, about: dict[str, Any]) -> Path:
    """Save the adapter; one that does not change the output is removed again, and NotApplied raised."""
    checkpoint.save(study.model, name, target, tokenizer=study.tokenizer, extra=about)
    try:
        probe(study.model, name, example(study.model, study.tokenizer, study.task, row))
    except NotApplied:
        shutil.rmtree(target)
        raise
    return target


def _notes(study: Study, adapter: Adapter, options: TrainingOptions, fitted: Fit) -> list[str]:
    """What a user should know of how this was measured."""
    notes = [] if study.test else ["there are no test rows: scored on the validation rows, which chose the best step"]
    if study.fresh:
        notes.append(f"the base's {study.fresh[0].partition('.')[0]} is untrained: the adapter also trained it")
    if not fitted.settled:
        steps = f"its schedule is longer than the run's {fitted.steps:,} steps"
        notes.append(f"warning: the method was still being pruned when training ended: {steps}")
    readers = [method.slug() for method, _ in adapter.terms() if method.reads_gradients]
    if options.optimizer == "mezo" and readers:
        notes.append(
            f"no mezo.log was written: {', '.join(readers)} reads gradients, so a step is more than two numbers"
        )
    suspicious = _suspicious(study, fitted)
    return [*notes, suspicious] if suspicious else notes


def _floor(study: Study, before: Sequence[Record], after: Sequence[Record], seed: int) -> Outcome | None:
    found = majority(study.task, study.train, before) if study.fresh else None
    if found is None:
        return None
    label, records = found
    return outcome(["accuracy"], records, after, base=f"always {label!r}", seed=seed)


def _suspicious(study: Study, fitted: Fit) -> str | None:
    """A first loss far above that of a uniform guess: labels or template are likely not what the base expects."""
    first = next((line["loss"] for line in fitted.history if "loss" in line), None)
    if first is None or study.task.kind not in ("generation", "chat", "language_modeling"):
        return None
    guess = math.log(study.model.config.get_text_config().vocab_size)  # type: ignore[union-attr,operator]
    if first < guess + FAR:
        return None
    return (
        f"warning: the first loss was {first:.1f}, a uniform guess over the vocabulary has {guess:.1f}: "
        "check the template, the tokenizer and what is trained (--show-mask 3)"
    )


def _extra(study: Study, options: TrainingOptions, fitted: Fit) -> dict[str, Any]:
    """What is kept with the adapter: enough to evaluate it again and to know where it came from."""
    return {
        "task": study.task.as_dict(),
        "data": {**study.source, "rows": [len(study.train), len(study.validation), len(study.test)]},
        "training": {**asdict(options), "report_to": list(options.report_to), "steps_done": fitted.steps,
                     "best_step": fitted.best_step, "tokens": fitted.tokens, "seconds_spent": round(fitted.seconds, 1)},
        "seed": options.seed,
    }  # fmt: skip


def _samples(before: Sequence[Record], after: Sequence[Record], seed: int) -> list[dict[str, Any]]:
    """Items chosen by the seed alone, not by how well they came out."""
    chosen = sorted(random.Random(seed).sample(range(len(before)), min(SAMPLES, len(before))))
    return [
        {
            "input": before[at]["input"],
            # A language model's text is its own reference.
            "reference": before[at]["reference"] if "output" in before[at] else None,
            "base": _given(before[at]),
            "adapter": _given(after[at]),
        }
        for at in chosen
    ]


def _given(record: Record) -> Any:
    if "output" in record:
        return record["output"]
    return f"loss {record['loss'] / max(record['tokens'], 1):.3f} per token"
