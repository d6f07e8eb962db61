"""A contestant that ends the process that runs it; a module of its own, so that workers can import it."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graft.data.rows import Row
from graft.tournament.entrant import Answerer, Arena, Entrant
from graft.tournament.entrants.majority import Majority


@dataclass(frozen=True)
class Deadly(Entrant):
    """Kills its process `times` times, by a signal or (`signal` 0) by leaving with code 7; then it is the majority.

    `marks`: a folder that gets a file for every time it is run.
    """

    seeded: ClassVar[bool] = False

    marks: str = ""
    times: int = 1
    signal: int = signal.SIGKILL

    def refuses(self, arena: Arena) -> str | None:
        return None

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        Path(self.marks).mkdir(parents=True, exist_ok=True)
        before = len(os.listdir(self.marks))
        (Path(self.marks) / str(os.getpid())).touch()
        if before < self.times:
            if self.signal:
                os.kill(os.getpid(), self.signal)
            os._exit(7)
        return Majority().fit(arena, rows, seed)
