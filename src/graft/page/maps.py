"""Heat maps as tables: sweeps over settings, spans of layers switched off, and training on one data set for another.

A cell holds its number, so that color is never the only way to read it. `heat` runs from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from graft.page import costs, words
from graft.page.standings import Plain, titles, value
from graft.titles import title


@dataclass(frozen=True)
class Heat:
    """A cell of a heat map: its number, what more is known of it, and how much color it gets; None for an empty one."""

    text: str = ""
    more: str = ""
    heat: float | None = None


@dataclass(frozen=True)
class HeatMap:
    """A table with a color: what rows and columns are, their names, and the cells row by row."""

    title: str
    note: str
    down: str
    across: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Heat, ...], ...]


def sweeps(standings: Plain) -> list[Plain]:
    """Every sweep: its points as a table, and a heat map for each value of the third and further axes."""
    return [_sweep(sweep, standings) for sweep in standings.get("sweeps") or []]


def ablations(standings: Plain) -> list[HeatMap]:
    """What the score loses when an adapter's parts in a span of layers are switched off: first by last layer."""
    places, made = words.digits(standings["metric"]["unit"]), []
    names = titles(standings)
    for ablation in standings.get("ablations") or []:
        layers = [str(at) for at in ablation["layers"]]
        found = {(str(each["first"]), str(each["last"])): each for each in ablation["loss"]}
        most = max((abs(each["change"]) for each in found.values() if each.get("change") is not None), default=0) or 1
        cells = tuple(tuple(_span(found.get((a, b)), places, most) for b in layers) for a in layers)
        made.append(
            HeatMap(
                f"{ablation['contestant']} on {names.get(ablation['board'], ablation['board'])}",
                "How the score changes without the adapter’s parts in these layers, nothing retrained. Darker: more.",
                "first layer off",
                "last layer off",
                tuple(layers),
                tuple(layers),
                cells,
            )
        )
    return made


def transfer(standings: Plain) -> list[HeatMap]:
    """Scores of what was trained on one data set and tested on another."""
    places, made = words.digits(standings["metric"]["unit"]), []
    for matrix in standings.get("transfer") or []:
        names = tuple(title(name) for name in matrix["data"])
        low, high = _ends([score for row in matrix["scores"] for score in row])
        cells = tuple(
            tuple(Heat(words.number(score, places), "", _heat(score, low, high)) for score in row)
            for row in matrix["scores"]
        )
        size = matrix.get("size")
        where = " · ".join(
            str(each) for each in (f"{size:,} rows" if size else None, title(matrix.get("model") or "")) if each
        )
        made.append(
            HeatMap(
                f"{matrix['contestant']}{', ' + where if where else ''}",
                "Trained on one data set, tested on all. Darker is higher.",
                "trained on",
                "tested on",
                names,
                names,
                cells,
            )
        )
    return made


def _sweep(sweep: Plain, standings: Plain) -> Plain:
    metric, axes = standings["metric"], sweep["axes"]
    places = words.digits(metric["unit"])
    by = {tuple(words.plain(each) for each in point["at"]): point for point in sweep["points"]}
    points = [
        {
            "at": at,
            "score": words.number(value(point.get("score")), places),
            "interval": words.interval(point.get("score"), places),
            "trainable": costs.cost("trainable").shown(point.get("trainable")),
        }
        for at, point in by.items()
    ]
    return {
        "name": sweep["contestant"],
        "board": titles(standings).get(sweep["board"], sweep["board"]),
        "axes": [axis["name"] for axis in axes],
        "points": points,
        "maps": _grids(axes, by, places, metric["title"]) if len(axes) > 1 else [],
    }


def _grids(axes: Sequence[Plain], by: Mapping[tuple[str, ...], Plain], places: int, metric: str) -> list[HeatMap]:
    """A grid of the first two axes for every value of the others, all on one scale of color."""
    values = [[words.plain(each) for each in axis["values"]] for axis in axes]
    low, high = _ends([value(point.get("score")) for point in by.values()])
    made = []
    for others in product(*values[2:]):
        cells = tuple(
            tuple(_point(by.get((row, column, *others)), places, low, high) for column in values[1])
            for row in values[0]
        )
        where = ", ".join(f"{axis['name']} {each}" for axis, each in zip(axes[2:], others, strict=True))
        note = f"The {metric} with its interval, by {axes[0]['name']} and {axes[1]['name']}. Darker is higher."
        made.append(HeatMap(where, note, axes[0]["name"], axes[1]["name"], tuple(values[0]), tuple(values[1]), cells))
    return made


def _point(point: Mapping[str, Any] | None, places: int, low: float, high: float) -> Heat:
    score = value(point.get("score")) if point else None
    if point is None or score is None:
        return Heat(words.NOTHING)
    return Heat(words.number(score, places), words.interval(point["score"], places), _heat(score, low, high))


def _span(found: Mapping[str, Any] | None, places: int, most: float) -> Heat:
    if found is None:
        return Heat()
    change = found.get("change")
    if change is None:
        return Heat(words.NOTHING)
    text = words.number(change, places)
    score = words.number(found.get("score"), places)
    return Heat(f"+{text}" if change > 0 else text, f"score {score}", round(abs(change) / most, 3))


def _ends(scores: Sequence[float | None]) -> tuple[float, float]:
    known = [score for score in scores if score is not None]
    return (min(known), max(known)) if known else (0.0, 1.0)


def _heat(score: float | None, low: float, high: float) -> float | None:
    return None if score is None else round((score - low) / (high - low), 3) if high > low else 0.5
