"""The folder of a comparison: every trial in a folder of its own, and nothing in memory that is not there.

RUN/recipe.yaml                     what was asked for
RUN/trials/ID/result.json           written last: a trial that has it is finished and is never run again
RUN/trials/ID/records.jsonl         answers to the test rows, one line each (final trials)
RUN/trials/ID/curve.jsonl           the learning curve
RUN/trials/ID/adapter/              the trained adapter (final trials of the first seed)
RUN/standings.json, items.parquet   what came out of all of them
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graft.data.task import Record
from graft.errors import BadInput
from graft.files import write_text
from graft.tournament.running import Finished

TRIALS, RESULT, RECORDS, CURVE, ADAPTER = "trials", "result.json", "records.jsonl", "curve.jsonl", "adapter"


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
    """The results of all finished trials, by id. Raises BadInput for one that is torn."""
    found = {}
    for path in sorted((run / TRIALS).glob(f"*/{RESULT}")):
        try:
            found[path.parent.name] = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise BadInput(f"{path} is no result: {error}. Remove its folder; the trial is then run again.") from error
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
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
