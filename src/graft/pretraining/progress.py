"""Telling how a run goes: a progress bar for people, one JSON line per step for programs."""

import json
import os
import time
from pathlib import Path
from types import TracebackType

from graft.pretraining.loop import Progress
from graft.progress import Bar, clock


class Reporter(Bar):
    """Appends each step to a JSON-lines file and draws a bar on the error stream (no terminal: a line a minute)."""

    def __init__(self, log: Path, resume: bool = False) -> None:
        super().__init__("training")
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("a" if resume else "w", encoding="utf-8")
        self._said = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._log.close()

    def step(self, progress: Progress) -> None:
        """Record one optimizer step."""
        facts = {
            "step": progress.step, "tokens": progress.tokens, "loss": round(progress.loss, 5), "rate": progress.rate,
            "norm": round(progress.norm, 4), "tokens_per_second": round(progress.speed, 1),
        }  # fmt: skip
        self._log.write(json.dumps(facts) + "\n")
        left = clock(progress.tokens * max(1 / progress.share - 1, 0) / progress.speed)
        text = f"step {progress.step}  loss {progress.loss:.3f}  {progress.speed:,.0f} tokens/s  {left} left"
        self.update(progress.share, text)
        if time.monotonic() - self._said > 60:
            self._said = time.monotonic()
            self._log.flush()
            if not self.console.is_terminal:
                self.console.print(f"{progress.share:6.1%}  {text}", highlight=False)
                os.fsync(self._log.fileno())
