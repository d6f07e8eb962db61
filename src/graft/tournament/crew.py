"""Who runs the trials: this process, several processes on this machine, or a Ray cluster."""

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from graft.errors import BadInput
from graft.tournament.arena import Arenas
from graft.tournament.design import Design, Trial
from graft.tournament.running import Finished, run

PATIENCE = 2  # times that a trial may take its process with it

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


class Processes(Crew):
    """Several processes on this machine. One that dies (memory, a signal) costs a retry, then its trial has failed."""

    def __init__(self, workers: int) -> None:
        self.room = workers
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._taken: dict[Future[Finished], tuple[Design, Trial, Path | None]] = {}
        self._lost: dict[Trial, int] = {}
        self._pool = self._fresh()

    def begin(self, design: Design, trial: Trial, keep: Path | None) -> None:
        self._taken[self._pool.submit(work, design, trial, keep, self._threads)] = (design, trial, keep)

    def next(self) -> tuple[Trial, Finished]:
        while True:
            done, _ = wait(self._taken, return_when=FIRST_COMPLETED)
            future = done.pop()
            taken = self._taken[future]
            try:
                finished = future.result()
            except BrokenProcessPool:
                if (given_up := self._again()) is not None:
                    return given_up
                continue
            del self._taken[future]
            return taken[1], finished

    def _again(self) -> tuple[Trial, Finished] | None:
        """A process died, and the pool with it: start all its trials again, but for one that saw this too often."""
        taken, self._taken = list(self._taken.values()), {}
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._fresh()
        given_up = None
        for design, trial, keep in taken:
            self._lost[trial] = self._lost.get(trial, 0) + 1
            if self._lost[trial] > PATIENCE * len(taken) and given_up is None:
                why = "the process that ran it died, and again when it was repeated: memory may not be enough"
                given_up = trial, Finished({"status": "failed", "error": why, "seconds": None})
            else:
                self.begin(design, trial, keep)
        return given_up

    def _fresh(self) -> ProcessPoolExecutor:
        # Fork would copy locks that torch's threads hold.
        return ProcessPoolExecutor(self.room, multiprocessing.get_context("spawn"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list((self._pool._processes or {}).values()) if error is not None else ():
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


class Cluster(Crew):
    """A Ray cluster: a trial that a lost node takes with it is run again on another, by Ray.

    `address` is what `ray.init` takes; "local" starts one here. Bases and data must be at the same paths on all nodes;
    results come back to this process, which writes them.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise BadInput(f'--ray needs the extra "scale": pip install "graft[scale]" ({error}).') from error
        self._ray = ray
        try:
            ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError) as error:
            raise BadInput(f"--ray {address}: no Ray cluster answers there. {error}") from error
        self._taken: dict[Any, Trial] = {}
        self.room = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._run: Callable[..., Any] = ray.remote(num_cpus=1, max_retries=-1)(work).remote

    def begin(self, design: Design, trial: Trial, keep: Path | None) -> None:
        self._taken[self._run(design, trial, keep, 1)] = trial

    def next(self) -> tuple[Trial, Finished]:
        (done, *_), _ = self._ray.wait(list(self._taken), num_returns=1)
        return self._taken.pop(done), self._ray.get(done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()
