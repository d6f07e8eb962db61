"""Reading what a comparison left in its folder: standings.json, checked as far as the page relies on it."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graft.errors import BadInput
from graft.page.shape import problems
from graft.titles import title

SCHEMA = 1
NAME, ITEMS = "standings.json", "items.parquet"

Plain = dict[str, Any]


def read(run: Path) -> Plain:
    """The standings of a run. NaN and infinity, which are no JSON, become None.

    Raises BadInput when there are none, or when they are not what this version reads, naming every place at fault.
    """
    path = run / NAME
    if not path.is_file():
        raise BadInput(
            f"there is no {NAME} in {run}: give the folder that `graft compare` wrote. "
            "It is written when all has been played; the same `graft compare` goes on where it stopped."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is no JSON: {error}. Run `graft compare` again; it repeats no finished trial."
        ) from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        seen = found.get("schema") if isinstance(found, dict) else type(found).__name__
        raise BadInput(f"{path} has schema {seen}, and this version of graft reads schema {SCHEMA}.")
    if wrong := list(problems(found)):
        shown = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise BadInput(f"{path} cannot be shown: {shown}. Run `graft compare` again; it repeats no finished trial.")
    for board in found["boards"]:
        for line in board["lines"]:
            _flatten(line)
    return found


def parts(board: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a board is called: its data, how many rows were trained on, and its base; of folders the last name."""
    size = board["size"]
    rows = f"{size:,} rows" if isinstance(size, int) and size else str(size or "all rows")
    return title(board["data"]), rows, title(board["model"])


def titles(standings: Plain) -> dict[str, str]:
    """What each board is called, by its id; the ids themselves stand in for names that two boards would share."""
    names = {board["id"]: " · ".join(parts(board)) for board in standings["boards"]}
    shared = Counter(names.values())
    return {board: f"{name} ({board})" if shared[name] > 1 else name for board, name in names.items()}


def done(board: Mapping[str, Any], higher_is_better: bool) -> list[Plain]:
    """The lines of a board that have a score, best first; equal ones by name, so that no order of entry decides."""
    scored = [line for line in board["lines"] if line["status"] == "done" and value(line.get("score")) is not None]
    return sorted(
        scored, key=lambda line: (-line["score"]["value"] * (1 if higher_is_better else -1), line["contestant"])
    )


def value(interval: Mapping[str, Any] | None) -> float | None:
    """The value of an interval that may be missing or undefined."""
    return None if interval is None else interval.get("value")


def _flatten(line: Plain) -> None:
    """Make a cost with an interval, as forgetting is, a number, and its interval the spread."""
    for name, spent in (line.get("costs") or {}).items():
        if isinstance(spent, dict):
            change = spent.get("change") or {}
            line["costs"][name] = value(change)
            if change.get("low") is not None and change.get("high") is not None:
                line["spread"] = {**(line.get("spread") or {}), name: [change["low"], change["high"]]}
