"""What the page's script draws from: points, Pareto lines, curves, ranks and sweeps, as small as they can be."""

from collections.abc import Mapping, Sequence
from typing import Any

from graft.page import costs, words
from graft.page.marks import mark
from graft.page.standings import Plain, done, titles, value

MOST = 60  # points of a curve; more cannot be told apart at the width of a page


def drawn(standings: Plain) -> Plain:
    """Everything but the items. Contestants are named by their place in `contestants`."""
    names = [each["name"] for each in standings["contestants"]]
    metric = standings["metric"]
    places = {name: at for at, name in enumerate(names)}
    kinds = costs.measured([line for board in standings["boards"] for line in board["lines"]])
    ids = [board["id"] for board in standings["boards"]]
    ranks = standings.get("ranks")
    return {
        "metric": {
            "title": metric["title"],
            "unit": metric["unit"],
            "digits": words.digits(metric["unit"]),
            "higher": metric["higher_is_better"],
        },
        "contestants": [
            [each["name"], *vars(mark(at, each["kind"])).values()] for at, each in enumerate(standings["contestants"])
        ],
        "costs": [[each.key, each.title, each.unit] for each in kinds],
        "boards": [_board(board, standings, kinds, places) for board in standings["boards"]],
        "ranks": ranks
        and {
            "average": ranks["average"],
            "names": [places[name] for name in ranks["contestants"]],
            "critical": ranks["critical_difference"],
            "groups": [[places[name] for name in group] for group in ranks["groups"]],
        },
        "sweeps": [_sweep(sweep, places, ids) for sweep in standings.get("sweeps") or []],
    }


def fronts(board: Mapping[str, Any], kinds: Sequence[costs.Cost], higher_is_better: bool) -> dict[str, list[str]]:
    """For each kind of cost the contestants on its Pareto line, cheapest first."""
    found = {}
    for kind in kinds:
        points = [
            (line["contestant"], line["costs"][kind.key], line["score"]["value"])
            for line in done(board, higher_is_better)
            if (line.get("costs") or {}).get(kind.key) is not None
        ]
        found[kind.key] = costs.front(points, lower_is_cheaper=kind.lower_is_cheaper, higher_is_better=higher_is_better)
    return found


def _board(board: Plain, standings: Plain, kinds: Sequence[costs.Cost], places: Mapping[str, int]) -> Plain:
    points, higher = [], standings["metric"]["higher_is_better"]
    same = [each for each in standings["boards"] if _place(each) == _place(board)]
    for line in done(board, higher):
        score, spread = line["score"], line.get("spread") or {}
        spent = {
            kind.key: [line["costs"][kind.key], kind.shown(line["costs"][kind.key]), *(spread.get(kind.key) or [])]
            for kind in kinds
            if (line.get("costs") or {}).get(kind.key) is not None
        }
        points.append([places[line["contestant"]], score["value"], score.get("low"), score.get("high"), spent])
    curves = [[places[line["contestant"]], _runs(line["curve"])] for line in board["lines"] if line.get("curve")]
    lines = {key: [places[name] for name in names] for key, names in fronts(board, kinds, higher).items()}
    return {
        "title": titles(standings)[board["id"]], "rows": board["rows"].get("train", 0),
        "group": standings["boards"].index(same[0]), "points": points, "fronts": lines, "curves": curves,
        "reference": places.get(board.get("reference", ""), -1),
    }  # fmt: skip


def _place(board: Mapping[str, Any]) -> tuple[str, str]:
    """What boards of different sizes share."""
    return board["model"], board["data"]


def _runs(curve: Sequence[Mapping[str, Any]]) -> list[list[list[float | None]]]:
    """Each seed's points: steps, seconds, loss, validation loss."""
    seeds: dict[Any, list[Mapping[str, Any]]] = {}
    for point in curve:
        seeds.setdefault(point.get("seed"), []).append(point)
    return [
        [
            [_short(point.get(key)) for point in _thinned(points)]
            for key in ("step", "seconds", "loss", "validation_loss")
        ]
        for points in seeds.values()
    ]


def _thinned(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most about MOST points: evenly taken, the first and last and every one with a validation loss among them."""
    last = len(points) - 1
    even = {round(at * last / (MOST - 1)) for at in range(MOST)} if last >= MOST else set(range(len(points)))
    checks = [at for at, point in enumerate(points) if point.get("validation_loss") is not None]
    step = -(-len(checks) // MOST) if checks else 1
    return [points[at] for at in sorted(even | set(checks[::step]) | set(checks[-1:]))]


def _sweep(sweep: Plain, places: Mapping[str, int], boards: Sequence[str]) -> Plain | None:
    """A sweep over one axis, to be drawn as a curve; the others are tables."""
    if len(sweep["axes"]) != 1:
        return None
    axis = sweep["axes"][0]
    by = {words.plain(point["at"][0]): point for point in sweep["points"]}
    values = [words.plain(each) for each in axis["values"]]
    scores = [by[each].get("score") if each in by else None for each in values]
    return {
        "name": sweep["contestant"],
        "contestant": places.get(sweep["contestant"], 0),
        "axis": axis["name"],
        "values": values,
        "scores": [
            [score["value"], score["low"], score["high"]] if score and value(score) is not None else None
            for score in scores
        ],
    }


def _short(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.5g}")
