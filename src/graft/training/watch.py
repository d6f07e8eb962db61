"""What happens around every optimizer step: methods' moments, the time, checks, the log, and whether all is well."""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from graft.errors import NotApplied
from graft.progress import Bar, clock
from graft.training.fingerprints import Fingerprints
from graft.training.trainer import GraftTrainer

PATIENCE = 3  # optimizer steps with a rate above zero after which some tensor must have moved


class Watch(TrainerCallback):
    """The one callback. `history` holds a line per step and per check, and is what metrics.jsonl holds."""

    def __init__(self, trainer: GraftTrainer, log: Path | None, bar: Bar, history: list[dict[str, Any]]) -> None:
        self.trainer, self.bar, self.history = trainer, bar, history
        self.log = log.open("a", encoding="utf-8") if log else None
        self.stopped = False
        self.last_share = 0.0
        self.validation = ""
        self.gradients: list[str] = []
        self.steps_with_rate = 0
        self.start: Fingerprints | None = None

    def __enter__(self) -> None:
        """The log is open."""

    def __exit__(self, *_: object) -> None:
        if self.log:
            self.log.close()

    def stop(self) -> None:
        """Ask for the end after the step in progress."""
        self.stopped = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember where the tensors start."""
        self.start = Fingerprints(self.trainer.adapter) if state.global_step == 0 else None
        self.last_share = self.trainer.pace.share(state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock; the methods' moment before the forward."""
        self.trainer.moment = self.trainer.pace.begin(state.global_step)
        self._during("forward")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The methods' moment between backward and step; whether anything can move at all."""
        self._during("gradients")
        self.steps_with_rate += any(group["lr"] > 0 for group in self.trainer.optimizer.param_groups)  # type: ignore[union-attr]
        if self.start is not None and self.steps_with_rate == PATIENCE:
            tensors = self.start.tensors.items()
            self.gradients = [name for name, p in tensors if p.grad is not None and bool(p.grad.any())]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The methods' moment after the step."""
        self._during("stepped")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock; ask for a check, a checkpoint or the end where one is due."""
        trainer = self.trainer
        trainer.pace.end()
        if self.start is not None and self.steps_with_rate >= PATIENCE:
            self._moved()
        before, share = self.last_share, trainer.pace.share(state.global_step)
        self.last_share = share
        due = math.floor(share * trainer.options.checks + 1e-9) > math.floor(before * trainer.options.checks + 1e-9)
        over = share >= 1.0
        control.should_training_stop |= over or self.stopped
        control.should_evaluate = bool(trainer.validation) and (due or over)
        control.should_save = trainer.folder is not None and (due or over or self.stopped)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Add a line to the log, and show it."""
        line: dict[str, Any] = {"step": state.global_step}
        for name, value in (logs or {}).items():
            if name in ("loss", "grad_norm", "learning_rate", "eval_loss"):
                line[{"eval_loss": "validation_loss"}.get(name, name)] = value
        state.log_history.clear()  # the Trainer writes all of it into every checkpoint; metrics.jsonl has it
        if len(line) == 1:
            return
        pace = self.trainer.pace
        line |= {"tokens": pace.tokens, "seconds": round(pace.spent, 3)}
        self.history.append(line)
        if self.log:
            self.log.write(json.dumps(line) + "\n")
            self.log.flush()
        self._show(line, pace.share(state.global_step))

    def _show(self, line: dict[str, Any], share: float) -> None:
        if "validation_loss" in line:
            self.validation = f"  validation {line['validation_loss']:.3f}"
            return
        left = self.trainer.pace.left(line["step"])
        ending = f"  {clock(left)} left" if left is not None else ""
        speed = f"{self.trainer.pace.speed():,.0f} tokens/s"
        self.bar.update(share, f"step {line['step']}  loss {line['loss']:.3f}{self.validation}  {speed}{ending}")

    def _during(self, phase: Any) -> None:
        for method, parts in self.trainer.adapter.terms():
            method.during(phase, self.trainer.moment, parts)

    def _moved(self) -> None:
        assert self.start is not None
        if not self.start.changed():
            adapter = self.trainer.adapter
            count = len(self.start.tensors)
            why = (
                f"{len(self.gradients)} of them have gradients, too small for the learning rate to move them"
                if self.gradients
                else "their gradients are all zero or missing: the loss does not depend on them"
            )
            raise NotApplied(
                f"after {PATIENCE} optimizer steps none of the {count} trainable tensors of adapter {adapter.name!r} "
                f"has moved; {why}. Check the learning rate, the sites, and that the rows have trained tokens."
            )
        self.start = None


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Within the `with`, the first Ctrl-C asks to `stop` after the step in progress; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def asked(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
