"""One board's table: a line for each contestant, and every pair of contestants compared."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from graft import metrics, statistics
from graft.data.task import Record
from graft.statistics import Comparison
from graft.tournament import results
from graft.tournament.design import Design
from graft.tournament.playing import Board, courses
from graft.tournament.running import headline
from graft.tournament.search import Course

MEASURED = ("training_seconds", "tokens_per_second", "peak_bytes", "latency_ms", "rows_per_second",
            "latency_merged_ms", "rows_per_second_merged", "flops", "energy_kwh")  # fmt: skip
REFERENCES = ("zero_shot", "majority")  # ways that the others are held against: the first of these that answered


def table(design: Design, board: Board, done: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A board with its data card, lines and pairs; see `standings`."""
    ways = courses(design, board, done)
    metric = metrics.get(headline(design, board.arena))
    runs = {name: _runs(design, way, done, folder) for name, way in ways.items()}
    runs = {name: records for name, records in runs.items() if records}
    scores = {name: statistics.interval_runs(metric, records) for name, records in runs.items()}
    sign = 1 if metric.higher_is_better else -1
    ranked = sorted(runs, key=lambda name: (-sign * scores[name].value, _identity(design, name), name))
    best = next((name for name in ranked if scores[name].reason is None), None)
    reference = _reference(design, runs)
    # Compared from the best downwards: the order in which contestants were named decides nothing.
    compared = statistics.pairs(metric, {name: runs[name] for name in ranked}) if len(ranked) > 1 else {}
    lines = []
    for contestant in design.contestants:
        name = contestant.name
        line = {"contestant": name, **_state(ways[name], done), "score": None, "metrics": {},
                "chosen": dict(ways[name].chosen or ()), "costs": {}, "spread": {}, "runs": [], "curve": [],
                "against_best": None, "against_reference": None, "equal_to_best": False}  # fmt: skip
        if name in runs:
            others = [each for each in board.arena.task.metrics if each != metric.name]
            line |= {
                "score": scores[name].as_json(),
                "metrics": {metric.name: scores[name].as_json()}
                | {each: statistics.interval_runs(metrics.get(each), runs[name]).as_json() for each in others},
                "against_best": _oriented(compared, best, name),
                "against_reference": _oriented(compared, reference, name),
                **_costs(ways[name], done), "curve": _curve(ways[name], folder),
                "runs": [{"seed": t.seed, "trial": t.id, "score": done[t.id].get("score")} for t in ways[name].final],
            }  # fmt: skip
            against = line["against_best"]
            line["equal_to_best"] = name == best or (against is not None and against["outcome"] in
                                                     ("same", "no difference shown", "better"))  # fmt: skip
        lines.append(line)
    arena, size = board.arena, board.place.size
    rows = {"train": len(arena.rows(size)), "validation": len(arena.held_back(size)), "test": len(arena.test)}
    return {
        "id": board.id, "model": design.models[board.place.model], "data": design.data[board.place.data].source,
        "size": size, "task": arena.task.kind, "rows": rows, "card": arena.card(), "best": best,
        "reference": reference, "lines": lines,
        "pairs": [{"a": a, "b": b, "comparison": _plain(each), "p_corrected": each.p}
                  for (a, b), each in compared.items()],
    }  # fmt: skip


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


def _costs(way: Course, done: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of the first seed; of what is measured, the median over seeds, with the spread."""
    finished = [done[trial.id]["costs"] for trial in way.final if done[trial.id]["status"] == "done"]
    costs, spread = dict(finished[0]), {}
    for name in MEASURED:
        values = [each[name] for each in finished if each.get(name) is not None]
        if values:
            costs[name], spread[name] = median(values), [min(values), max(values)]
    return {"costs": costs, "spread": spread}


def _curve(way: Course, folder: Path) -> list[dict[str, Any]]:
    return [line for trial in way.final for line in results.curve(folder, trial.id)]


def _reference(design: Design, runs: Mapping[str, Any]) -> str | None:
    named = {contestant.as_json().get("entrant"): contestant.name for contestant in design.contestants}
    return next((named[way] for way in REFERENCES if named.get(way) in runs), None)


def _oriented(compared: Mapping[tuple[str, str], Comparison], base: str | None, other: str) -> dict[str, Any] | None:
    """`other` against `base`, whichever way round the pair was compared."""
    if base is None or base == other:
        return None
    if (base, other) in compared:
        return compared[base, other].as_json()
    return compared[other, base].reversed().as_json()


def _plain(comparison: Comparison) -> dict[str, Any]:
    """A comparison with its flips counted; which items they are stands in items.parquet."""
    found = comparison.as_json()
    flips = comparison.flips
    found["flips"] = flips and {
        "improved": len(flips.improved), "worsened": len(flips.worsened), "unchanged": flips.unchanged,
    }  # fmt: skip
    return found


def _identity(design: Design, name: str) -> str:
    way: Sequence[Any] = [each.as_json() for each in design.contestants if each.name == name]
    return json.dumps(way, sort_keys=True, default=str)
