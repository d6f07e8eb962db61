"""Reading what a comparison left in its folder: standings.json, checked as far as the page relies on it."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graft.errors import BadInput

SCHEMA = 1
NAME, ITEMS = "standings.json", "items.parquet"

Plain = dict[str, Any]

# What must be there, and of which type; everything else may be missing.
NEEDED: dict[str, Mapping[str, type | tuple[type, ...]]] = {
    "": {"name": str, "command": str, "metric": dict, "answer": dict, "protocol": dict, "contestants": list,
         "boards": list, "trials": list, "environment": dict},
    "metric": {"name": str, "title": str, "unit": str, "higher_is_better": bool},
    "answer": {"sentence": str},
    "protocol": {"seeds": list},
    "contestants": {"name": str, "kind": str},
    "boards": {"id": str, "model": str, "data": str, "size": (int, str, type(None)), "rows": dict, "lines": list},
    "boards.lines": {"contestant": str, "status": str},
    "boards.pairs": {"a": str, "b": str, "comparison": dict},
    "trials": {"id": str, "contestant": str, "board": str, "status": str},
    "sweeps": {"contestant": str, "board": str, "axes": list, "points": list},
    "ablations": {"contestant": str, "board": str, "layers": list, "loss": list},
    "transfer": {"contestant": str, "data": list, "scores": list},
}  # fmt: skip
STATUSES = ("done", "failed", "refused")


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
    if wrong := list(_problems(found)):
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
    return short(board["data"]), rows, short(board["model"])


def titles(standings: Plain) -> dict[str, str]:
    """What each board is called, by its id; the ids themselves stand in for names that two boards would share."""
    names = {board["id"]: " · ".join(parts(board)) for board in standings["boards"]}
    shared = Counter(names.values())
    return {board: f"{name} ({board})" if shared[name] > 1 else name for board, name in names.items()}


def short(name: str) -> str:
    """The last part of a path or of a Hugging Face id; anything else as it is."""
    return name if "=" in name else re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name


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


def _problems(found: Plain) -> Iterator[str]:
    for place, needed in NEEDED.items():
        for where, entry in _entries(found, place):
            if not isinstance(entry, dict):
                yield f"{where or 'the whole'} is {type(entry).__name__} instead of an object"
                continue
            for key, kind in needed.items():
                if key not in entry:
                    yield f"{where}{'.' if where else ''}{key} is missing"
                elif not isinstance(entry[key], kind):
                    yield f"{where}{'.' if where else ''}{key} is {type(entry[key]).__name__}"
            if place == "boards.lines" and entry.get("status") not in STATUSES:
                yield f"{where}.status is {entry.get('status')!r}, none of {', '.join(STATUSES)}"


def _entries(found: Plain, place: str) -> Iterator[tuple[str, Any]]:
    """Every entry at a dotted place, lists walked through, each with its own address."""
    entries: list[tuple[str, Any]] = [("", found)]
    for key in place.split(".") if place else ():
        inner: list[tuple[str, Any]] = []
        for where, entry in entries:
            held = entry.get(key) if isinstance(entry, dict) else None
            name = f"{where}.{key}" if where else key
            if isinstance(held, list):
                inner += [(f"{name}[{at}]", each) for at, each in enumerate(held)]
            elif held is not None:
                inner.append((name, held))
        entries = inner
    yield from entries
