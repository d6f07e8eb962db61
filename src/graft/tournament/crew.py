"""Who runs the trials: this process (here), several on this machine (`processes`), or a Ray cluster (`cluster`)."""

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import torch

from graft.tournament.arena import Arenas
from graft.tournament.design import Design, Trial
from graft.tournament.running import Finished, run

PATIENCE = 2  # times that a trial is run again after its process died

_arenas: dict[Design, Arenas] = {}


def work(design: Design, trial: Trial, keep: Path | None, threads: int | None = None) -> Finished:
    """Run one trial in the process that this is, which keeps what it has loaded."""
    if threads is not None:
        torch.set_num_threads(threads)
    if design not in _arenas:
        _arenas.clear()
        _arenas[design] = Arenas(design)
    arenas = _arenas[design]
    others = arenas.others(trial.place) if design.transfer and trial.final else ()
    return run(design, trial, arenas.ready(trial.place), keep, others)


def given_up(last: str) -> Finished:
    """The result of a trial whose process died every time, with what is known of the last death."""
    why = f"the process that ran it died, all {PATIENCE + 1} times that it was run: {last}"
    return Finished({"status": "failed", "error": why, "seconds": None})


class Crew(ABC):
    """Takes trials while it has `room`, and gives them back finished, in any order."""

    room: int = 1

    @abstractmethod
    def begin(self, design: Design, trial: Trial, keep: Path | None) -> None:
        """Take a trial."""

    @abstractmethod
    def next(self) -> tuple[Trial, Finished]:
        """Wait for any trial to be finished."""

    def __enter__(self) -> "Crew":
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what is still running."""


class Alone(Crew):
    """This process, one trial after another."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _arenas.clear()

    def begin(self, design: Design, trial: Trial, keep: Path | None) -> None:
        self._taken = (design, trial, keep)

    def next(self) -> tuple[Trial, Finished]:
        return self._taken[1], work(*self._taken)
