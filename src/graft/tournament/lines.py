"""One board's table: a line for each contestant, and every pair of contestants compared."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from graft import metrics, statistics
from graft.data.task import Record
from graft.statistics import Comparison, Interval
from graft.tournament import results
from graft.tournament.design import Design
from graft.tournament.playing import Board, courses
from graft.tournament.running import headline
from graft.tournament.search import Course

MEASURED = ("training_seconds", "tokens_per_second", "peak_bytes", "latency_ms", "rows_per_second",
            "latency_merged_ms", "rows_per_second_merged", "flops", "energy_kwh")  # fmt: skip
EMPTY: Mapping[str, Any] = {
    "score": None, "metrics": {}, "chosen": {}, "costs": {}, "spread": {}, "runs": [], "curve": [],
    "against_best": None, "against_reference": None, "equal_to_best": False,
}  # fmt: skip
REFERENCES = ("zero_shot", "majority")  # ways that the others are held against: the first of these that answered


def table(design: Design, board: Board, done: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A board with its data card, lines and pairs; see `standings`."""
    ways = courses(design, board, done)
    metric = metrics.get(headline(design, board.arena))
    others = [metrics.get(name) for name in board.arena.task.metrics if name != metric.name]
    runs = {name: records for name, way in ways.items() if (records := _runs(design, way, done, folder))}
    scores = {name: statistics.interval_runs(metric, records) for name, records in runs.items()}
    ranked = _ranked(design, scores, metric.higher_is_better)
    best = next((name for name in ranked if math.isfinite(scores[name].value)), None)
    reference = _reference(design, runs)
    # Compared from the best downwards: the order in which contestants were named decides nothing.
    compared = statistics.pairs(metric, {name: runs[name] for name in ranked}) if len(ranked) > 1 else {}
    lines = []
    for name, way in ways.items():
        line = {"contestant": name, **_state(way, done), **EMPTY, "chosen": dict(way.chosen or ())}
        if name in runs:
            every = {metric.name: scores[name]}
            every |= {each.name: statistics.interval_runs(each, runs[name]) for each in others}
            against, gained = (_oriented(compared, side, name) for side in (best, reference))
            line |= {
                "score": scores[name].as_json(), "metrics": {each: found.as_json() for each, found in every.items()},
                "against_best": against and against.as_json(), "equal_to_best": _holds(scores[name], against),
                "against_reference": gained and gained.as_json(),
                **_costs(way, done), "curve": [point for t in way.final for point in results.curve(folder, t.id)],
                "runs": [{"seed": t.seed, "trial": t.id, "score": done[t.id].get("score")} for t in way.final],
            }  # fmt: skip
        lines.append(line)
    about = _about(design, board)
    about["card"]["notes"] += [f"{name}: {note}" for name, way in ways.items() for note in _notes(way, done)]
    return {
        **about, "best": best, "reference": reference, "lines": lines,
        "pairs": [{"a": a, "b": b, "comparison": _plain(each), "p_corrected": each.p}
                  for (a, b), each in compared.items()],
    }  # fmt: skip


def line_of(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The line of a contestant in a board's table."""
    return next(line for line in table["lines"] if line["contestant"] == name)


def _about(design: Design, board: Board) -> dict[str, Any]:
    """Which board it is, and on what."""
    arena, place = board.arena, board.place
    rows = {"train": arena.rows(place.size), "validation": arena.held_back(place.size), "test": arena.test}
    return {
        "id": board.id, "model": design.models[place.model], "data": design.data[place.data].source,
        "size": place.size, "task": arena.task.kind, "rows": {split: len(of) for split, of in rows.items()},
        "card": arena.card(place.size),
    }  # fmt: skip


def _ranked(design: Design, scores: Mapping[str, Interval], higher_is_better: bool) -> list[str]:
    """Names from the best score down, those without one last; equal ones by what they do, then by name."""
    does = {each.name: json.dumps(each.as_json(), sort_keys=True, default=str) for each in design.contestants}

    def place(name: str) -> tuple[float, str, str]:
        value = scores[name].value
        return math.inf if math.isnan(value) else -value if higher_is_better else value, does[name], name

    return sorted(scores, key=place)


def _holds(score: Interval, against: Comparison | None) -> bool:
    """Whether who has this score is not shown to be worse than the best; `against` is None for the best itself."""
    return math.isfinite(score.value) and (against is None or against.outcome != "worse")


def _runs(design: Design, way: Course, done: Mapping[str, Any], folder: Path) -> list[list[Record]]:
    """The records of each seed; what no seed changes counts as equal in all of them."""
    finals = [trial.id for trial in way.final if done.get(trial.id, {}).get("status") == "done"]
    found = [results.records(folder, identity) for identity in finals]
    return found * len(design.seeds) if len(way.final) == 1 and found else found


def _state(way: Course, done: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a contestant is done, failed or was refused, and what its trials complained of."""
    trials = [done[trial.id] for trial in (way.final or way.rungs) if trial.id in done]
    errors = list(dict.fromkeys(trial["error"] for trial in trials if trial["error"]))
    finished = [trial for trial in trials if trial["status"] == "done"]
    if way.final and finished:
        lost = len(trials) - len(finished)
        return {"status": "done", "error": f"{lost} of {len(trials)} seeds failed: {errors[0]}" if lost else None}
    refused = trials and all(trial["status"] == "refused" for trial in trials)
    return {"status": "refused" if refused else "failed", "error": "; ".join(errors) or "it has no validation score"}


def _notes(way: Course, done: Mapping[str, Any]) -> list[str]:
    """What an entrant has to say of its answers, each thing once."""
    return list(dict.fromkeys(note for trial in way.final for note in done.get(trial.id, {}).get("notes", ())))


def _costs(way: Course, done: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of the first seed; of what is measured, the median over seeds, with the spread."""
    finished = [done[trial.id]["costs"] for trial in way.final if done[trial.id]["status"] == "done"]
    costs, spread = dict(finished[0]), {}
    for name in MEASURED:
        values = [each[name] for each in finished if each.get(name) is not None]
        if values:
            costs[name], spread[name] = median(values), [min(values), max(values)]
    return {"costs": costs, "spread": spread}


def _reference(design: Design, runs: Mapping[str, Any]) -> str | None:
    ways = {contestant.name: contestant.as_json().get("entrant") for contestant in design.contestants}
    return next((name for way in REFERENCES for name in sorted(runs) if ways[name] == way), None)


def _oriented(compared: Mapping[tuple[str, str], Comparison], base: str | None, other: str) -> Comparison | None:
    """`other` against `base`, whichever way round the pair was compared."""
    if base is None or base == other:
        return None
    if (base, other) in compared:
        return compared[base, other]
    return compared[other, base].reversed()


def _plain(comparison: Comparison) -> dict[str, Any]:
    """A comparison with its flips counted; which items they are stands in items.parquet."""
    found = comparison.as_json()
    flips = comparison.flips
    found["flips"] = flips and {
        "improved": len(flips.improved), "worsened": len(flips.worsened), "unchanged": flips.unchanged,
    }  # fmt: skip
    return found
