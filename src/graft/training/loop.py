"""`fit`: train one attached adapter on the features of a task."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from graft import memory
from graft.attach import Adapter, of_tasks, use
from graft.attach.recompute import checkpoint_activations, checkpoints_activations
from graft.data.losses import to_device
from graft.data.task import Features, Task
from graft.data.tasks_of_rows import named
from graft.files import write_text
from graft.progress import Bar
from graft.scoring import length
from graft.training import resume
from graft.training.frozen import Trunk, skipping
from graft.training.journal import NAME as JOURNAL
from graft.training.journal import Journal
from graft.training.options import TrainingOptions
from graft.training.pace import Pace
from graft.training.ready import ready
from graft.training.still import undropped
from graft.training.trainer import GraftTrainer, Objective
from graft.training.watch import Watch, interruptible

FREE = 0.5  # the share of the free memory that a forward may plan to keep on a CPU; backward needs the rest
ENDLESS = 10**9  # steps of a run that a time budget ends


@dataclass(frozen=True)
class Fit:
    """What training did. history: lines of the log, per step and per check; seconds: spent in optimizer steps;
    tokens: seen, without padding; peak_memory: bytes, and memory_kind says of what; rows_at_once: rows of a forward
    pass in the end; best_step: whose tensors the adapter has now (None without validation rows); settled: whether the
    methods had come to what they are to give (see `Method.settled`)."""

    history: list[dict[str, Any]] = field(repr=False)
    steps: int
    seconds: float
    tokens: int
    peak_memory: int
    memory_kind: str
    rows_at_once: int
    best_step: int | None
    best_loss: float | None
    stopped_early: bool
    settled: bool


def fit(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    train: Sequence[Features],
    validation: Sequence[Features],
    adapter: Adapter,
    options: TrainingOptions | None = None,
    *,
    folder: str | Path | None = None,
    resume_from: Path | None = None,
    where: Sequence[str] = (),
    run: dict[str, Any] | None = None,
    begin: Callable[[], None] = lambda: None,
    trunk: Trunk | None = None,
    objective: Objective | None = None,
    show: bool = False,
) -> Fit:
    """Train `adapter` on `train`, and leave it with the tensors of the lowest loss on `validation` (if there is any).

    train, validation: what `task.features` gives. folder: where checkpoints and metrics.jsonl go; None keeps nothing on
    disk. resume_from: a checkpoint of the same run. where: the origin of each row, by `item`, for messages. run: what
    identifies the run beside options, method and task (base, hash of the data); a checkpoint of another run is refused.
    begin: called when all is checked, before anything is written. trunk: keeps what frozen layers give, for this
    run and others on the same base. objective: what MeZO lowers instead of the loss, for rows given by number. show: a
    progress bar on the error stream.

    The same inputs, machine and number of threads give the same tensors bit for bit, interrupted and resumed or not.
    Raises what `ready` raises, NotApplied when no tensor moves, Refused for a loss that is not finite or rows too large
    for the memory; KeyboardInterrupt after Ctrl-C, with a checkpoint written.
    """
    options, home = options or TrainingOptions(), Path(folder) if folder is not None else None
    facts = ready(task, train, adapter, options, home, resume_from, run or {})
    begin()
    device = next(model.parameters()).device
    pace = Pace(_steps(options, len(train)), options.seconds)
    with _as_before(model, options), tempfile.TemporaryDirectory() as scrap, use(model, adapter.name):
        trainer = GraftTrainer(
            model, _arguments(options, home or Path(scrap), device, pace.steps), adapter=adapter, task=task,
            tokenizer=tokenizer, train=train, validation=validation, options=options, pace=pace,
            rows_at_once=_rows_at_once(options), where=where, folder=home and home / "checkpoints", facts=facts,
            objective=objective,
        )  # fmt: skip
        history = _history(home, resume_from)
        if home is not None and options.optimizer == "mezo":
            trainer.add_callback(Journal(home / JOURNAL, trainer))
        with memory.Peak(device) as peak, Bar("training", show) as bar:
            if resume_from is None:
                _prepare(trainer, train)
            with skipping(adapter, trunk, train, trainer.loss_of, half=options.autocast):
                trainer.portions.size = _fitting(trainer, train, options, device)
                _train(trainer, home and home / "metrics.jsonl", bar, history, resume_from)
        if trainer.best is not None:
            resume.put(adapter, trainer.best, "the best step")
    return Fit(
        history=history, steps=trainer.state.global_step, seconds=pace.spent, tokens=pace.tokens,
        peak_memory=peak.bytes, memory_kind=peak.kind, rows_at_once=trainer.portions.size,
        best_step=trainer.best_step if trainer.best is not None else None,
        best_loss=trainer.best_loss if math.isfinite(trainer.best_loss) else None,
        stopped_early=not pace.over(trainer.state.global_step), settled=trainer.settled,
    )  # fmt: skip


def _train(
    trainer: GraftTrainer, log: Path | None, bar: Bar, history: list[dict[str, Any]], resume_from: Path | None
) -> None:
    """Train to the end, from a checkpoint where there is one; a finished run is only put back."""
    if resume_from is not None and resume.read_facts(resume_from)["finished"]:
        trainer.restore(resume_from)
        return
    watch = Watch(trainer, log, bar, history)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    with watch, interruptible(watch.stop):
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    step = trainer.state.global_step
    if watch.stopped and not trainer.pace.over(step):
        saved = f"saved at step {step}; --resume goes on from there" if trainer.folder else f"stopped at step {step}"
        raise KeyboardInterrupt(saved)
    if trainer.folder is not None:
        trainer.save(finished=True)


def _arguments(options: TrainingOptions, folder: Path, device: torch.device, steps: int) -> TrainingArguments:
    """The Trainer's own arguments: what it does itself, and nothing of what is done here."""
    clip = 0.0 if options.optimizer == "mezo" else options.clip  # an estimate is as long as its random direction
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=options.batch, max_steps=steps, max_grad_norm=clip,
        eval_strategy="no", save_strategy="no", logging_steps=1, logging_nan_inf_filter=False, disable_tqdm=True,
        report_to=list(options.report_to) or "none", seed=options.seed, use_cpu=device.type == "cpu",
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several processes use several GPUs; one process uses one
    return arguments


def _steps(options: TrainingOptions, rows: int) -> int:
    if options.seconds is not None:
        return ENDLESS
    return options.steps or max(1, math.ceil(options.epochs * math.ceil(rows / options.batch)))


def _rows_at_once(options: TrainingOptions) -> int:
    return options.batch if options.accumulate == "auto" else math.ceil(options.batch / options.accumulate)


def _prepare(trainer: GraftTrainer, train: Sequence[Features]) -> None:
    """Let each method prepare itself on training batches, made only when it asks for them."""
    size = trainer.portions.size

    def batches(named_too: bool) -> Iterator[dict[str, Any]]:
        for at in range(0, len(train), size):
            batch = trainer.task.collate(train[at : at + size], trainer.tokenizer)
            tasks = named(train[at : at + size])
            with of_tasks(trainer.grafted, tasks):
                inputs = to_device(trainer.task.inputs(batch), trainer.grafted)
                yield {**inputs, "tasks": tasks} if named_too else inputs

    for method, parts in trainer.adapter.terms():
        method.prepare(trainer.grafted, batches(method.needs_tasks), parts)


def _fitting(trainer: GraftTrainer, train: Sequence[Features], options: TrainingOptions, device: torch.device) -> int:
    """Rows that can go through at once.

    A GPU says itself when they do not fit. A CPU's system ends the process instead: there it is measured what the
    longest row keeps for its backward, and the free memory divided by that.
    """
    size = trainer.portions.size
    if options.accumulate != "auto" or device.type != "cpu" or options.checkpointing or options.optimizer == "mezo":
        return size
    longest = max(train, key=length)
    state = torch.get_rng_state()
    trainer.grafted.train()
    kept = memory.kept_bytes(lambda: trainer.loss_of([longest]))
    torch.set_rng_state(state)
    return max(1, min(size, int(FREE * memory.available(device) // max(kept, 1))))


def _history(home: Path | None, resume_from: Path | None) -> list[dict[str, Any]]:
    """The lines of the log up to the checkpoint; metrics.jsonl is cut there, so that it is one curve."""
    lines: list[dict[str, Any]] = []
    if resume_from is not None:
        last = resume.read_facts(resume_from)["step"]
        log = resume_from.parent.parent / "metrics.jsonl"
        kept = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.endswith("}")]
        lines = [line for line in kept if line["step"] <= last]
    if home is not None:
        write_text(home / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return lines


@contextmanager
def _as_before(model: nn.Module, options: TrainingOptions) -> Iterator[None]:
    """Checkpoint activations where asked, and put back what changes on a model: that, its mode, the cache setting."""
    settings, training = vars(model.config), model.training
    cached = {name: settings[name] for name in ("use_cache",) if name in settings}
    switched = options.checkpointing and not checkpoints_activations(model)
    if switched:
        settings["use_cache"] = False
        checkpoint_activations(model, True)
    try:
        with nullcontext() if options.base_dropout else undropped(model):
            yield
    finally:
        settings.pop("use_cache", None)
        settings.update(cached)
        model.train(training)
        if switched:
            checkpoint_activations(model, False)
