"""From the options of `graft tune` to a run: data and base loaded and checked, the adapter attached."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft import catalogue, metrics
from graft.attach.around import refuse_checkpointing
from graft.data import DataSets, Task, check, load, show_mask
from graft.data import fit as fit_task
from graft.data.rows import Row, some
from graft.data.tasks_of_rows import knowing
from graft.errors import BadInput
from graft.limits import check_numbers
from graft.loading import Base, Source, chosen_device, fast_bf16, find_base, in_bf16, kept_with, load_base
from graft.method import Method, describe
from graft.scoring import check_metric, general_text, measurable, score
from graft.scoring.evaluation import seen_by
from graft.scoring.room import cut_rows, longest, positions_left
from graft.training import folder as runs
from graft.training.optimization import check_optimizer
from graft.training.options import TrainingOptions
from graft.training.tracking import check_trackers
from graft.training.tuning import Study, Tuned, prepared, tune
from graft.training.upon import lent, located

if TYPE_CHECKING:
    from graft.verbs.tune import Options

SHORTEST = 8  # tokens of a row


class Session:
    """One call of `graft tune`, up to the moment at which something is trained."""

    def __init__(self, options: "Options") -> None:
        assert isinstance(options.method, Method)
        self.options, self.method = options, options.method
        self.training = _training(options)
        self.folder = options.folder or Path("runs") / options.name
        self.notes: list[str] = []
        self.resume_from = self._opened()
        places = located(options.upon, self.method)
        general = general_text(options.general_text)
        source = find_base(options.model, options.trust_remote_code)
        data, task = self._rows(source)
        self.method = knowing(self.method, data.train, [*data.validation, *data.test])
        base = load_base(source, task, dtype=self._dtype(), device=options.device, seed=options.seed)
        self.notes += base.notes
        self.general = measurable(general, base.model, base.tokenizer, self.notes)
        if options.metric and options.metric not in task.metrics:
            one = score(base.model, base.tokenizer, task, (data.test or data.validation)[:1])
            check_metric(options.metric, task.kind, task.metrics, one)
        with lent(base.model, places, self.method, options.name) as method:
            self.adapter = prepared(base.model, method, options.name, base.tokenizer, options.seed)
        check_optimizer(self.adapter, self.training)
        if options.checkpointing:
            refuse_checkpointing(self.adapter)
        self.notes += self.adapter.remarks
        if (limit := self._limit(task, data, base)) is not None:
            task = fit_task(data, source.tokenizer, source.config, limit)
            data, _ = check(data, task, source.tokenizer, options.allow)
        if note := cut_rows(task, data.train, base.tokenizer):
            self.notes.append(note)
        others = [kept["data"] for kept in map(kept_with, places) if kept.get("data")]
        validation, test = self._held_out(data, others)
        origin = {"source": options.data, "sha256": data.hash, "splits": list(options.splits), "seed": options.seed}
        origin |= {"others": others} if others else {}
        self.study = Study(base.model, base.tokenizer, task, data.train, validation, test, base.fresh, origin)

    def _opened(self) -> Path | None:
        """The checkpoint to go on from, if there is one. A dry run only says what is in the way of a run."""
        try:
            found = runs.opened(self.folder, self.options.resume)
        except BadInput as error:
            if not self.options.dry_run:
                raise
            self.notes.append(f"a run would be refused: {error}")
            return None
        if self.options.resume and found is None:
            self.notes.append(f"there is nothing to resume in {self.folder}: the run starts from the beginning")
        return found

    def _rows(self, source: Source) -> tuple[DataSets, Task]:
        """The rows, checked, and the task that they are for."""
        given = self.options
        data = load(given.data, given.columns, given.task, given.template, given.splits, given.seed, given.allow)
        task = fit_task(data, source.tokenizer, source.config, given.length)
        data, report = check(data, task, source.tokenizer, given.allow)
        if not data.train or not (data.validation or data.test):
            has = ", ".join(data.splits)
            raise BadInput(f"{given.data}: tuning needs train rows, and validation or test rows. It has {has}.")
        self.notes += [*data.notes, *report.lines()[1:]]
        return data, task

    def _held_out(self, data: DataSets, others: list[dict[str, Any]]) -> list[tuple[Row, ...]]:
        """Validation and test rows to score, without those that the adapters below were trained on."""
        given = self.options
        how = {name: getattr(given, name) for name in ("columns", "task", "template", "allow")}
        seen = seen_by(others, given.data, how)
        kept = [tuple(row for row in rows if row.where not in seen) for rows in (data.validation, data.test)]
        if seen and not any(kept):
            raise BadInput(
                f"the adapters of --upon were trained on every validation and test row of {given.data}. Give other "
                "rows, or adapters tuned with the same --seed and --splits, which leave out the same ones."
            )
        if len(kept[0]) + len(kept[1]) < len(data.validation) + len(data.test):
            self.notes.append("rows that the adapters of --upon were trained on are not scored")
        most = (given.validation_rows, given.test_rows)
        return [tuple(some(rows, count, given.seed)) for rows, count in zip(kept, most, strict=True)]

    def tune(self) -> Tuned:
        """Train and score. A run that Ctrl-C ended says how to go on with it."""
        try:
            return tune(
                self.study, self.adapter, self.training, self.folder, resume_from=self.resume_from,
                metric=self.options.metric, general=self.general, extra={"base": self.options.model},
                begin=self._begin, show=sys.stderr.isatty(),
            )  # fmt: skip
        except KeyboardInterrupt as interruption:
            if not interruption.args:
                raise
            recipe = shlex.quote(str(self.folder / runs.RECIPE))
            raise KeyboardInterrupt(f"{interruption}: graft tune {recipe} --resume") from None

    def _begin(self) -> None:
        runs.write_recipe(self.folder, self.options, self.method)
        runs.write_environment(self.folder, next(self.study.model.parameters()).device)

    def masks(self) -> Any:
        """The first training rows with what is trained marked, where asked for."""
        if not self.options.show_mask:
            return None
        rows = self.study.train[: self.options.show_mask]
        features = self.study.task.features(rows, self.study.tokenizer, train=True)
        return show_mask(self.study.task, features, self.study.tokenizer, self.options.show_mask)

    def summary(self, tuned: Tuned | None = None) -> dict[str, str]:
        """What is or would be trained, and what it took."""
        counts, study = self.adapter.counts, self.study
        facts = {
            "base": f"{self.options.model} ({type(study.model).__name__}, {counts.total:,} parameters)",
            "method": " + ".join(_spelled(describe(term)) for term in self.method.methods()),
            "task": f"{study.task.kind}, {len(study.train):,} train, {len(study.validation):,} validation, "
                    f"{len(study.test):,} test rows",
            "coverage": "; ".join(self.adapter.reach()),
            "trainable": f"{counts.trainable:,} ({counts.trainable / counts.total:.3%} of the base)"
                         + (f", and {counts.head:,} of the head" if counts.head else ""),
            "stored": f"{counts.stored / 1024:,.1f} KiB",
        }  # fmt: skip
        if tuned is not None:
            fit = tuned.fit
            facts["training"] = (
                f"{fit.steps:,} steps in {fit.seconds:,.1f} s, {fit.tokens / max(fit.seconds, 1e-9):,.0f} tokens/s, "
                f"{fit.rows_at_once} rows at once"
                + (f", best at step {fit.best_step}" if fit.best_step else "")
                + (", bf16 arithmetic" if self.training.autocast else "")
            )
            facts["peak_memory"] = f"{fit.peak_memory / 2**20:,.0f} MiB ({fit.memory_kind})"
            facts["adapter"] = str(tuned.folder)
        return facts

    def command(self, tuned: Tuned) -> str:
        """How to use the adapter."""
        verb = "generate" if self.study.task.kind in ("generation", "chat", "language_modeling") else "evaluate"
        words = ["graft", verb, "--model", self.options.model, "--adapter", str(tuned.folder)]
        if verb == "evaluate":
            words += ["--data", self.options.data]
            words += ["--columns", self.options.columns] if self.options.columns else []
        elif self.adapter.tasks:
            words += ["--task", self.adapter.tasks[0]]
        words += ["--prompt", "…"] if verb == "generate" else []
        return catalogue.environment(map(type, self.method.methods())) + shlex.join(words)

    def _limit(self, task: Task, data: DataSets, base: Base) -> int | None:
        """The length that virtual tokens leave to rows, where that is less than the task's; None where all fits.

        Raises BadInput when the user asked for more, and a row has more.
        """
        left = positions_left(base.model, self.options.name)
        if left is None or task.max_length <= left[0]:
            return None
        limit, added = left
        taken = f"{added} virtual tokens of the method are among the {limit + added} positions that the model has"
        if limit < SHORTEST:
            raise BadInput(f"{taken}, which leaves no room for a row: use fewer virtual tokens.")
        tokens = longest(task, [row for rows in data.splits.values() for row in rows], base.tokenizer)
        if tokens > limit and self.options.length is not None:
            raise BadInput(f"{taken}, and rows have up to {tokens} tokens: use --length {limit}.")
        if tokens > limit:
            self.notes.append(f"{taken}: rows have {limit} tokens at most")
        return None if self.options.length is not None else limit

    def _dtype(self) -> Any:
        # What trains in place trains in fp32; its arithmetic is then in bf16 by autocast.
        return "fp32" if self.training.autocast else self.options.dtype


def _training(options: "Options") -> TrainingOptions:
    """How to train. Raises BadInput for every option that has no meaning, before anything is looked for."""
    check_numbers(options, {"validation_rows": 0, "test_rows": 0, "show_mask": 0, "seed": 0}, ("minutes",))
    if empty := [name for name in ("model", "data") if not getattr(options, name).strip()]:
        raise BadInput(f"{' and '.join(empty)} must not be empty: tuning needs a model and rows.")
    for metric in filter(None, (options.metric, options.objective if options.objective != "loss" else "")):
        metrics.get(metric)
    check_trackers(options.report_to)
    in_place = any(term.in_place for term in options.method.methods())  # type: ignore[union-attr]
    device = chosen_device(options.device)
    return TrainingOptions(
        epochs=options.epochs, steps=options.steps, seconds=None if options.minutes is None else 60 * options.minutes,
        batch=options.batch, accumulate=options.accumulate, lr=options.lr, schedule=options.schedule,
        warmup=options.warmup, weight_decay=options.weight_decay, clip=options.clip,
        base_dropout=options.base_dropout, checkpointing=options.checkpointing, seed=options.seed,
        checks=options.checks, patience=options.patience, report_to=options.report_to,
        optimizer=options.optimizer, perturbation=options.perturbation,
        objective=options.objective,
        autocast=(options.dtype == "auto" and fast_bf16(device)) or (in_place and in_bf16(options.dtype, device)),
    )  # fmt: skip


def _spelled(description: dict[str, Any]) -> str:
    name = description.pop("method")
    return f"{name}({', '.join(f'{key}={value}' for key, value in description.items())})"
