"""The tables of the page as plain values: cells in words, with what they sort by. The template only lays them out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graft.page import costs, words
from graft.page.standings import Plain, done, titles, value

OUTCOMES = {"better": "better", "worse": "worse"}


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a second and quieter text, and a number to sort by (None sorts last)."""

    text: str
    more: str = ""
    key: float | None = None
    tone: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Bar:
    """An interval on the scale of its table: places in percent of the width."""

    low: float
    high: float
    at: float


def scores(board: Plain, metric: Plain) -> list[Plain]:
    """A row for every contestant: the score, how it compares, what flipped; those without a score last, with why."""
    places = words.digits(metric["unit"])
    ranked = done(board, metric["higher_is_better"])
    scale = _scale([line["score"] for line in ranked])
    rows = []
    for line in ranked:
        score, first = line["score"], line["contestant"] == (board.get("best") or ranked[0]["contestant"])
        rows.append(
            {
                "name": line["contestant"],
                "status": "done",
                "warning": line.get("error") or "",
                "score": Cell(words.number(score["value"], places), words.interval(score, places), score["value"]),
                "bar": _bar(score, scale),
                "best": Cell("the best score", key=0.0) if first else verdict(line.get("against_best")),
                "reference": _against_reference(line, board),
                "flips": flips(line.get("against_reference")),
                "equal": bool(line.get("equal_to_best")) or first,
            }
        )
    rest = [line for line in board["lines"] if all(line is not each for each in ranked)]
    return rows + [{"name": line["contestant"], "status": _status(line), "error": _reason(line)} for line in rest]


def verdict(comparison: Mapping[str, Any] | None) -> Cell:
    """A comparison in the words it comes with: what was found first, then its numbers; sorted by the difference."""
    if comparison is None:
        return Cell(words.NOTHING)
    found = re.fullmatch(r"(.*?)(?: \((.*))?", str(comparison.get("verdict", words.NOTHING)), re.DOTALL)
    assert found is not None  # every text matches
    difference = value(comparison.get("difference"))
    more = f"({found[2]}" if found[2] else ""
    return Cell(found[1], more, difference, OUTCOMES.get(comparison.get("outcome", ""), "even"))


def flips(comparison: Mapping[str, Any] | None) -> Cell:
    """How many items moved each way, sorted by the sum."""
    moved = (comparison or {}).get("flips")
    if not moved:
        return Cell(words.NOTHING)
    up, down = (each if isinstance(each, int) else len(each) for each in (moved["improved"], moved["worsened"]))
    return Cell(f"+{up:,} {words.MINUS}{down:,}", key=float(up - down))


def spent(board: Plain, metric: Plain) -> tuple[list[costs.Cost], list[Plain], list[str]]:
    """The costs that were measured here, a row of cells for each contestant, and what was not measured."""
    lines = board["lines"]
    kinds = costs.measured(lines)
    places = words.digits(metric["unit"])
    shown = done(board, metric["higher_is_better"])
    rows = []
    for line in [*shown, *(line for line in lines if all(line is not each for each in shown))]:
        have, spread = line.get("costs") or {}, line.get("spread") or {}
        cells = []
        for kind in kinds:
            range_ = spread.get(kind.key)
            more = words.span(kind.shown(range_[0]), kind.shown(range_[1])) if range_ else ""
            cells.append(Cell(kind.shown(have.get(kind.key)), more, have.get(kind.key)))
        score = value(line.get("score"))
        rows.append(
            {
                "name": line["contestant"],
                "status": _status(line),
                "cells": cells,
                "score": Cell(words.number(score, places), key=score),
                "equal": bool(line.get("equal_to_best")),
            }
        )
    return kinds, rows, [kind.title for kind in costs.missing(lines)]


def details(board: Plain, metric: Plain) -> Plain:
    """Every metric with its interval, what the search chose, and the score of each seed."""
    shown = done(board, metric["higher_is_better"])
    names = list(dict.fromkeys(name for line in shown for name in line.get("metrics") or {}))
    places = words.digits(metric["unit"])
    rows = []
    for line in shown:
        found = [(line.get("metrics") or {}).get(name) for name in names]
        rows.append(
            {
                "name": line["contestant"],
                "chosen": words.settings(line.get("chosen")) or words.NOTHING,
                "metrics": [Cell(_free(value(each)), _free_interval(each), value(each)) for each in found],
                "seeds": " ".join(words.number(run.get("score"), places) for run in line.get("runs") or [])
                or words.NOTHING,
            }
        )
    return {"names": names, "rows": rows}


def pairs(board: Plain) -> list[Plain]:
    """Every two contestants, the second of a pair against its first, with the corrected p-value."""
    return [
        {"a": pair["b"], "b": pair["a"], "verdict": verdict(pair["comparison"]),
         "p": Cell("–" if (p := pair.get("p_corrected")) is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}", key=p)}
        for pair in board.get("pairs") or []
    ]  # fmt: skip


def overview(standings: Plain) -> list[Plain]:
    """A row for each contestant with its score on every board, bold where not shown to be worse than the best."""
    metric, boards = standings["metric"], standings["boards"]
    places = words.digits(metric["unit"])
    ranks = standings.get("ranks") or {"contestants": [], "average": []}
    average = dict(zip(ranks["contestants"], ranks["average"], strict=True))
    rows = []
    for contestant in standings["contestants"]:
        cells = []
        for board in boards:
            line = next((each for each in board["lines"] if each["contestant"] == contestant["name"]), None)
            score = value(line.get("score")) if line else None
            text = words.number(score, places) if line is None or line["status"] == "done" else line["status"]
            cells.append(Cell(text, key=score, bold=bool(line and line.get("equal_to_best") and score is not None)))
        rank = average.get(contestant["name"])
        rows.append({"name": contestant["name"], "cells": cells, "rank": Cell(words.number(rank, 2), key=rank)})
    return rows


def trials(standings: Plain, most: int) -> tuple[list[Plain], int]:
    """Every trial, and how many are left out when there are more than `most`: the failed ones are kept longest."""
    names = titles(standings)
    found = standings["trials"]
    kept = sorted(range(len(found)), key=lambda at: (found[at]["status"] == "done", at))[:most]
    places = words.digits(standings["metric"]["unit"])
    rows = [
        {
            "id": trial["id"],
            "contestant": trial["contestant"],
            "board": names.get(trial["board"], trial["board"]),
            "status": trial["status"],
            "error": trial.get("error") or "",
            "seed": Cell(words.NOTHING if trial.get("seed") is None else str(trial["seed"]), key=trial.get("seed")),
            "candidate": words.settings(trial.get("candidate")) or words.NOTHING,
            "share": Cell(
                words.NOTHING if trial.get("share") is None else f"{100 * trial['share']:g} %", key=trial.get("share")
            ),
            "validation": Cell(words.number(trial.get("validation"), places), key=trial.get("validation")),
            "score": Cell(words.number(trial.get("score"), places), key=trial.get("score")),
            "seconds": Cell(costs.cost("training_seconds").shown(trial.get("seconds")), key=trial.get("seconds")),
        }
        for trial in (found[at] for at in sorted(kept))
    ]
    return rows, len(found) - len(kept)


def _against_reference(line: Plain, board: Plain) -> Cell:
    if line["contestant"] == board.get("reference"):
        return Cell("the reference", key=0.0)
    return verdict(line.get("against_reference"))


def _scale(scores: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    ends = [each for score in scores for key in ("low", "value", "high") if (each := score.get(key)) is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = (high - low) * 0.04 or 1.0
    return low - room, high + room


def _bar(score: Mapping[str, Any], scale: tuple[float, float]) -> Bar:
    def at(key: str) -> float:
        here = score["value"] if score.get(key) is None else score[key]
        return round(100 * (here - scale[0]) / (scale[1] - scale[0]), 2)

    return Bar(at("low"), at("high"), at("value"))


def _status(line: Plain) -> str:
    return "no score" if line["status"] == "done" and value(line.get("score")) is None else str(line["status"])


def _reason(line: Plain) -> str:
    return line.get("error") or (line.get("score") or {}).get("reason") or "no reason was kept"


def _free(number: float | None) -> str:
    """A score of a metric whose unit is not given: large ones with one decimal, small ones with three."""
    return words.number(number, 1 if number is None or abs(number) >= 10 else 3)


def _free_interval(found: Mapping[str, Any] | None) -> str:
    if value(found) is None:
        return words.interval(found, 1)
    return words.interval(found, 1 if abs(found["value"]) >= 10 else 3)  # type: ignore[index]
