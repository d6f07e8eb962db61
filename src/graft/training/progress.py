"""Showing how training goes: a bar on the error stream where that is a terminal, and nothing elsewhere."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Bar:
    """Loss, tokens per second and the time left."""

    def __init__(self, shown: bool) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[facts]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)
        self._task = self._bar.add_task("training", total=1.0, facts="")
        self._validation = ""

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def step(self, line: dict[str, Any], share: float, speed: float, left: float | None) -> None:
        """Show one line of the log."""
        if "validation_loss" in line:
            self._validation = f"  validation {line['validation_loss']:.3f}"
            return
        ending = f"  {clock(left)} left" if left is not None else ""
        facts = f"step {line['step']}  loss {line['loss']:.3f}{self._validation}  {speed:,.0f} tokens/s{ending}"
        self._bar.update(self._task, completed=share, facts=facts)


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:07:00."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
