"""The answer: who is cheapest among those not shown to be worse than the best, by each cost, and what is still open."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graft.page import costs
from graft.tournament.lines import line_of

Board = Mapping[str, Any]

COSTS = ("trainable", "stored_bytes", "training_seconds", "peak_bytes", "flops", "latency_ms")
LISTED = 6  # pairs in a sentence


def answered(boards: Sequence[Board], metric: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence, the cheapest and the Pareto set by each cost, and what a doubled budget would likely settle."""
    fit = eligible(boards)
    scores = {name: mean_score(boards, name, metric) or 0.0 for name in fit}
    cheapest = {}
    for key in COSTS:
        known = {name: value for name in fit if (value := mean_cost(boards, name, key)) is not None}
        if known:
            name = min(known, key=lambda each: (known[each], -scores[each], each))
            shown, title = costs.cost(key).shown(known[name]), costs.cost(key).title
            unknown = [each for each in fit if each not in known]
            beside = f" (not measured for {_listed(unknown)})" if unknown else ""
            cheapest[key] = {
                "contestant": name,
                "shown": shown,
                "sentence": f"{name} needs the least {title}: {shown}{beside}.",
            }
    return {
        "sentence": _sentence(boards, fit, cheapest),
        "eligible": fit,
        "cheapest": cheapest,
        "pareto": {key: front(boards, metric, key) for key in COSTS},
        "doubled": _doubled(boards),
    }


def eligible(boards: Sequence[Board]) -> list[str]:
    """Contestants that are done with every seed on every board and not shown to be worse than its best on any."""
    return [
        name for name in _names(boards)
        if all(line["equal_to_best"] and not line["error"] for line in _lines(boards, name))
    ]  # fmt: skip


def front(boards: Sequence[Board], metric: Mapping[str, Any], key: str) -> list[str]:
    """The Pareto set over all boards: nobody else is at least as good and as cheap, and better or cheaper."""
    points = [
        (name, spent, score)
        for name in _names(boards)
        if (spent := mean_cost(boards, name, key)) is not None
        and (score := mean_score(boards, name, metric)) is not None
    ]
    return costs.front(points)


def mean_cost(boards: Sequence[Board], name: str, key: str) -> float | None:
    """A contestant's cost, on average over the boards; None where one has none."""
    values = [line["costs"].get(key) for line in _lines(boards, name)]
    return None if None in values else sum(values) / len(values)


def mean_score(boards: Sequence[Board], name: str, metric: Mapping[str, Any]) -> float | None:
    """A contestant's score on average over the boards, turned so that more is better; None where one has none."""
    values = [line["score"] and line["score"]["value"] for line in _lines(boards, name)]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return (1 if metric["higher_is_better"] else -1) * sum(values) / len(values)


def _sentence(boards: Sequence[Board], fit: list[str], cheapest: Mapping[str, Mapping[str, Any]]) -> str:
    if not any(line["status"] == "done" for board in boards for line in board["lines"]):
        return "No contestant finished: there is nothing to compare."
    bests = {board["best"] for board in boards if board["best"]}
    if not bests:
        return "No contestant has a score: there is nothing to compare."
    where = "" if len(boards) == 1 else f" on any of {len(boards)} boards"
    if not fit:
        return "No contestant holds everywhere: each failed, or is shown to be worse than the best, on some board."
    if len(_names(boards)) == 1:
        return f"{fit[0]} is the only contestant."
    if len(fit) == 1 and bests == set(fit):
        everywhere = "" if len(boards) == 1 else f" on all {len(boards)} boards"
        return f"{fit[0]} is the best{everywhere}: every other is shown to be worse, or did not finish."
    alone = next(iter(bests)) if len(bests) == 1 else None
    best = f"the best, {alone}" if alone else "the best"
    if len(fit) == 1:
        return f"{fit[0]} is the only one not shown to be worse than {best}{where}."
    told: dict[str, list[str]] = {}
    for key, words in (("stored_bytes", "to store"), ("training_seconds", "to train")):
        if key in cheapest:
            told.setdefault(cheapest[key]["contestant"], []).append(f"{words} ({cheapest[key]['shown']})")
    if alone and set(told) == {alone}:
        words = " and ".join(told[alone])
        return f"{alone} is the best, and the cheapest {words} of those not shown to be worse{where}."
    parts = [f"{name} is the cheapest {' and '.join(words)}" for name, words in told.items()]
    return f"{' and '.join(parts)} of those not shown to be worse than {best}{where}."


def _doubled(boards: Sequence[Board]) -> str:
    """Which differences that were not shown would be, if they stood with twice the test items and seeds."""
    pairs = [(board["id"], pair, pair["comparison"]) for board in boards for pair in board["pairs"]]
    unknown = sum(found["outcome"] == "undefined" for _, _, found in pairs)
    beside = f" {_pairs(unknown, 'has', 'have')} no comparison at all." if unknown else ""
    open_ = [each for each in pairs if each[2]["outcome"] == "no difference shown"]
    if not open_:
        settled = "Nothing is open: every pair was told apart or is the same." if len(pairs) > unknown else ""
        return (settled + beside).strip()
    would = [
        f"{pair['a']} against {pair['b']} on {board}"
        for board, pair, found in open_
        if found["smallest"] is not None and abs(found["difference"]["value"]) >= found["smallest"] / math.sqrt(2)
    ]
    if not would:
        return (
            f"{_pairs(len(open_), 'is', 'are')} open, and twice the test items and seeds would likely settle none of "
            f"them: the differences seen are too small.{beside}"
        )
    some = _listed(would if len(would) <= LISTED else [*would[:LISTED], f"{len(would) - LISTED} more"])
    said = f"Twice the test items and seeds would likely settle {len(would)} of {len(open_)} open pairs"
    return f"{said}: {some}.{beside}"


def _pairs(count: int, one: str, several: str) -> str:
    return f"{count} pair {one}" if count == 1 else f"{count} pairs {several}"


def _names(boards: Sequence[Board]) -> list[str]:
    return [line["contestant"] for line in boards[0]["lines"]]


def _lines(boards: Sequence[Board], name: str) -> list[Mapping[str, Any]]:
    return [line_of(board, name) for board in boards]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
