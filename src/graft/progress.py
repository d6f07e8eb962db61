"""Showing how long work goes on: a bar on the error stream where that is a terminal, and nothing elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Bar:
    """How much of some work is done, and facts about it, such as a loss or the time left."""

    def __init__(self, title: str, shown: bool = True) -> None:
        self.console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[facts]}"),
        )  # fmt: skip
        hidden = not (shown and self.console.is_terminal)
        self._bar = Progress(*columns, console=self.console, disable=hidden, transient=True)
        self._task = self._bar.add_task(title, total=1.0, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, share: float, facts: str = "") -> None:
        """`share` of the work (0 to 1) is done."""
        self._bar.update(self._task, completed=min(share, 1.0), facts=facts)


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:07:00."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
