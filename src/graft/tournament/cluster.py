"""A Ray cluster: trials on several machines."""

import importlib.util
import logging
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from graft.errors import BadInput, sentence
from graft.tournament.crew import PATIENCE, Crew, given_up, work
from graft.tournament.design import Design, Trial
from graft.tournament.running import Finished

ANSWERS_WITHIN = 5.0  # seconds in which a cluster must take a connection
TOKEN = Path("~/.ray/auth_token")  # where `ray start --head` leaves it


class Cluster(Crew):
    """A Ray cluster: a trial that a lost node takes with it is run again on another, by Ray.

    `address` is what `ray.init` takes; "local" starts one here. A trial has a GPU of its own where the cluster has any,
    else a core. Bases and data must be at the same paths on all nodes, as must the current folder, and that of the
    comparison for adapters to be kept; results come back to this process, which writes them. Raises BadInput where no
    cluster answers.
    """

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use over the network otherwise
        # Ray will not hide GPUs from tasks that ask for none, and warns of it.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if importlib.util.find_spec("ray") is None:
            raise BadInput('--ray needs the extra "scale": pip install "graft[scale]".')
        own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            # Ray shows its token to no address by itself, and reads this when it is imported.
            if _reach(address) and TOKEN.expanduser().is_file():
                os.environ.setdefault("RAY_AUTH_MODE", "token")
            import ray

            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (OSError, ValueError) as error:
            hint = "" if "RAY_AUTH_MODE" in os.environ else " If it asks for a token, set RAY_AUTH_MODE=token."
            raise BadInput(f"--ray {address}: no Ray cluster answers there. {sentence(error)}{hint}") from error
        self._ray = ray
        self._taken: dict[Any, Trial] = {}
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        self.room = gpus or max(1, int(there.get("CPU", 1)))
        self._run: Any = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=PATIENCE)(_work).remote

    def begin(self, design: Design, trial: Trial, keep: Path | None) -> None:
        self._taken[self._run(os.getcwd(), design, trial, keep)] = trial

    def next(self) -> tuple[Trial, Finished]:
        (done, *_), _ = self._ray.wait(list(self._taken), num_returns=1)
        trial = self._taken.pop(done)
        try:
            return trial, self._ray.get(done)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            return trial, given_up(sentence(error))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()


def _work(folder: str, design: Design, trial: Trial, keep: Path | None) -> Finished:
    """Run a trial on one core, in the folder that relative paths are meant from."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise BadInput(f"a node of the cluster has no folder {folder}: {sentence(error)}") from error
    return work(design, trial, keep, threads=1)


def _reach(address: str) -> bool:
    """Connect to HOST:PORT, which Ray would try for minutes where nobody is: whether that is this machine.

    Raises OSError.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return False
    with socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN) as made:
        return bool(made.getsockname()[0] == made.getpeername()[0])
