"""How far a run is: by steps, or by seconds of training where it has a time budget."""

import time
from dataclasses import dataclass, field

from graft.moment import Moment


@dataclass
class Pace:
    """Steps and seconds spent in optimizer steps. Checks and checkpoints do not count against a time budget."""

    steps: int
    seconds: float | None = None
    spent: float = 0.0
    tokens: int = 0
    last: float = 0.0  # share of the run that was over when the last step began
    _since: float | None = field(default=None, repr=False)

    def begin(self, step: int) -> Moment:
        """A step begins."""
        now = Moment(step, self.share(step), self.last)
        self.last, self._since = now.share, time.perf_counter()
        return now

    def end(self) -> None:
        """A step is done."""
        self.spent += self._running()
        self._since = None

    def share(self, step: float) -> float:
        """How much of the run is over after `step` steps, 0 to 1."""
        if self.seconds is not None:
            return min((self.spent + self._running()) / self.seconds, 1.0)
        return min(step / self.steps, 1.0)

    def over(self, step: int) -> bool:
        """Whether the run is over."""
        return self.share(step) >= 1.0

    def left(self, step: int) -> float | None:
        """Seconds of training still to come; None before the first step."""
        share = self.share(step)
        return self.spent * (1 - share) / share if share > 0 and self.spent > 0 else None

    def speed(self) -> float:
        """Tokens per second of training."""
        return self.tokens / self.spent if self.spent else 0.0

    def _running(self) -> float:
        return time.perf_counter() - self._since if self._since is not None else 0.0
