"""Several processes on this machine, each with one trial at a time, so that it is known whose trial killed one.

Ctrl-C is for the process that gives out the trials: the others do not hear it, and end when that one does.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter
from contextlib import suppress
from multiprocessing import connection, resource_tracker
from pathlib import Path
from types import TracebackType
from typing import Any

from graft.errors import BadInput
from graft.memory import settled
from graft.tournament.crew import PATIENCE, Crew, given_up, work
from graft.tournament.design import Design, Trial
from graft.tournament.running import Finished

Taken = tuple[Design, Trial, Path | None]


class Processes(Crew):
    """So many processes. A trial whose process dies (memory, a signal) is run again in a new one, then has failed."""

    def __init__(self, workers: int) -> None:
        self.room = workers
        threads = max(1, (os.cpu_count() or 1) // workers)
        self._idle = [_Worker(threads) for _ in range(workers)]
        self._busy: dict[_Worker, Taken] = {}
        self._deaths: Counter[Trial] = Counter()

    def begin(self, design: Design, trial: Trial, keep: Path | None) -> None:
        worker = self._idle.pop()
        self._busy[worker] = design, trial, keep
        worker.run(self._busy[worker])

    def next(self) -> tuple[Trial, Finished]:
        while True:
            pipes = {worker.pipe: worker for worker in self._busy}
            worker = pipes[connection.wait(list(pipes))[0]]
            try:
                found = worker.hear()
            except (EOFError, OSError):  # the other end is gone, perhaps in the middle of its answer
                found = self._buried(worker)
            if found is None:
                continue
            _, trial, _ = self._busy.pop(worker)
            self._idle.append(worker)
            if isinstance(found, Exception):
                raise found
            return trial, found

    def _buried(self, worker: "_Worker") -> Finished | None:
        """Run a trial whose process died again; its result when that was done often enough."""
        how, trial = worker.bury(), self._busy[worker][1]
        self._deaths[trial] += 1
        if self._deaths[trial] > PATIENCE:
            return given_up(how)
        worker.run(self._busy[worker])
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self._idle, *self._busy):
            worker.stop()


class _Worker:
    """A process that runs trials, started when there is none to take one; what it says comes out of `pipe`."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: Any = None
        self._began = False
        self.pipe: Any = None

    def run(self, taken: Taken) -> None:
        """Give it a trial."""
        if self._process is None:
            self._start()
        with suppress(BrokenPipeError):  # it died since the last trial, as is heard when it is listened to
            self.pipe.send(taken)

    def hear(self) -> Finished | Exception | None:
        """What came of its trial; before that, None once, when it has begun. Raises EOFError, OSError when it died."""
        said = self.pipe.recv()
        self._began = True
        return said

    def bury(self) -> str:
        """How it died. Raises BadInput when it did before it had begun, by itself: so would the next one."""
        self._process.join()
        code, self._process = self._process.exitcode, None
        if code > 0 and not self._began:
            raise BadInput(
                "a worker process ended before it took a trial; why stands above. A script that compares with workers "
                'does so below `if __name__ == "__main__":`, for every worker imports the script.'
            )
        if code == -signal.SIGKILL:
            return "killed, as the system does when memory runs out."
        return f"{signal.Signals(-code).name}." if code < 0 else f"exit code {code}."

    def stop(self) -> None:
        """End the process. A trial in flight leaves nothing: its result is written by who receives it."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy locks that torch's threads hold
        self._began = False
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._threads))
        # Ctrl-C reaches all processes of a terminal. Only this one answers it: the others begin with it blocked.
        resource_tracker.ensure_running()  # whose start, within ours, would unblock it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()


def _serve(pipe: Any, threads: int) -> None:
    """What a worker's process does: run what comes, answer with what came of it, and end with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(None)
    with settled():
        while True:
            design, trial, keep = pipe.recv()
            try:
                found: Finished | Exception = work(design, trial, keep, threads)
            except Exception as error:  # raised again where it is received, with what is known of it here
                error.add_note(traceback.format_exc())
                found = error
            pipe.send(found)


def _end_with_parent() -> None:
    """A parent that is killed tells nobody; without this its workers would train on."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
