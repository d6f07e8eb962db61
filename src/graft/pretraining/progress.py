"""Telling how a run goes: a progress bar for people, one JSON line per step for programs."""

import json
import os
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from graft.pretraining.loop import Progress


class Reporter:
    """Appends each step to a JSON-lines file and draws a bar on the error stream (no terminal: a line a minute)."""

    def __init__(self, log: Path, resume: bool = False) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("a" if resume else "w", encoding="utf-8")
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f} %"),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("training", total=1.0)
        self._said = 0.0

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._log.close()

    def step(self, progress: Progress) -> None:
        """Record one optimizer step."""
        facts = {
            "step": progress.step,
            "tokens": progress.tokens,
            "loss": round(progress.loss, 5),
            "rate": progress.rate,
        }
        self._log.write(
            json.dumps(facts | {"norm": round(progress.norm, 4), "tokens_per_second": round(progress.speed, 1)}) + "\n"
        )
        text = f"step {progress.step}  loss {progress.loss:.3f}  {progress.speed:,.0f} tokens/s"
        self._bar.update(self._task, completed=min(progress.share, 1.0), description=text)
        if time.monotonic() - self._said > 60:
            self._said = time.monotonic()
            self._log.flush()
            if not self._console.is_terminal:
                self._console.print(f"{progress.share:6.1%}  {text}", highlight=False)
                os.fsync(self._log.fileno())
