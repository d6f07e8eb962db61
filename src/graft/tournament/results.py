"""The folder of a comparison: every trial in a folder of its own, and nothing in memory that is not there.

RUN/recipe.yaml                     what was asked for
RUN/trials/ID/result.json           written last: a trial that has it is finished and is never run again
RUN/trials/ID/records.jsonl         answers to the test rows, one line each (final trials)
RUN/trials/ID/curve.jsonl           the learning curve
RUN/trials/ID/adapter/              the trained adapter (final trials of the first seed)
RUN/standings.json, items.parquet   what came out of all of them
RUN/.lock                           held by the comparison that is running
"""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graft.data.task import Record
from graft.errors import BadInput
from graft.files import write_text
from graft.tournament.running import Finished
from graft.training import space

TRIALS, RESULT, RECORDS, CURVE, ADAPTER = "trials", "result.json", "records.jsonl", "curve.jsonl", "adapter"
LOCK = ".lock"


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Have the folder to oneself, whoever is killed in it lets it go; what a killed one left half-written is removed.

    Raises BadInput when it cannot be written, and when another comparison is running there.
    """
    space.check_writable(run)
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(
                f"{run}: another comparison is running in this folder. Wait until it ends, or give another --folder."
            ) from error
        for aside in (run / TRIALS).glob("*/.*/"):
            shutil.rmtree(aside)
        yield


def folder_of(run: Path, trial: str) -> Path:
    """The folder of a trial."""
    return run / TRIALS / trial


def write(run: Path, trial: str, about: dict[str, Any], finished: Finished) -> dict[str, Any]:
    """Write a finished trial, the result last; gives the result as it can be read again."""
    home = folder_of(run, trial)
    home.mkdir(parents=True, exist_ok=True)
    if finished.records:
        write_text(home / RECORDS, _lines(finished.records))
    if finished.curve:
        write_text(home / CURVE, _lines(finished.curve))
    result = {**about, **finished.result}
    write_text(home / RESULT, json.dumps(result, indent=1, default=str) + "\n")
    return result


def finished(run: Path) -> dict[str, dict[str, Any]]:
    """The results of all finished trials, by id. Raises BadInput naming all that are torn."""
    found, torn = {}, []
    for path in sorted((run / TRIALS).glob(f"*/{RESULT}")):
        try:
            result = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            torn.append(f"{path} ({error})")
            continue
        if isinstance(result, dict) and "status" in result:
            found[path.parent.name] = result
        else:
            torn.append(f"{path} (no status)")
    if torn:
        raise BadInput(f"no result of a trial: {'; '.join(torn)}. Remove the folder: the trial is then run again.")
    return found


def records(run: Path, trial: str) -> list[Record]:
    """The records of a final trial's test rows."""
    return _read(folder_of(run, trial) / RECORDS)


def curve(run: Path, trial: str) -> list[dict[str, Any]]:
    """The learning curve of a trial; empty for one that has none."""
    path = folder_of(run, trial) / CURVE
    return _read(path) if path.exists() else []


def _lines(entries: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False, default=str) + "\n" for entry in entries)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        # Not splitlines: JSON leaves other ends of lines, such as U+2028, within texts as they are.
        return [json.loads(line) for line in path.read_text("utf-8").removesuffix("\n").split("\n")]
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}. Remove its folder: the trial is then run again.") from error
