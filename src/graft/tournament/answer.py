"""The answer: who is cheapest among those not shown to be worse than the best, by each cost, and what is still open."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graft.page import costs

Board = Mapping[str, Any]

COSTS = ("trainable", "stored_bytes", "training_seconds", "peak_bytes", "flops", "latency_ms")


def answered(boards: Sequence[Board], metric: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence, the cheapest and the Pareto set by each cost, and what a doubled budget would likely settle."""
    fit = eligible(boards)
    cheapest = {}
    for key in COSTS:
        known = {name: value for name in fit if (value := mean_cost(boards, name, key)) is not None}
        if known:
            name = min(known, key=lambda each: (known[each], -mean_score(boards, each, metric), each))
            shown, title = costs.cost(key).shown(known[name]), costs.cost(key).title
            cheapest[key] = {
                "contestant": name,
                "shown": shown,
                "sentence": f"{name} needs the least {title}: {shown}.",
            }
    return {
        "sentence": _sentence(boards, fit, cheapest),
        "eligible": fit,
        "cheapest": cheapest,
        "pareto": {key: front(boards, metric, key) for key in COSTS},
        "doubled": _doubled(boards),
    }


def eligible(boards: Sequence[Board]) -> list[str]:
    """Contestants that are done on every board and not shown to be worse than its best on any."""
    names = [line["contestant"] for line in boards[0]["lines"]] if boards else []
    return [name for name in names if all(_line(board, name)["equal_to_best"] for board in boards)]


def front(boards: Sequence[Board], metric: Mapping[str, Any], key: str) -> list[str]:
    """The Pareto set over all boards: nobody else is at least as good and as cheap, and better or cheaper."""
    names = [line["contestant"] for line in boards[0]["lines"]] if boards else []
    points = [
        (name, spent, mean_score(boards, name, metric))
        for name in names
        if all(_line(board, name)["status"] == "done" for board in boards)
        and (spent := mean_cost(boards, name, key)) is not None
    ]
    return costs.front(points)


def mean_cost(boards: Sequence[Board], name: str, key: str) -> float | None:
    """A contestant's cost, on average over the boards; None where one has none."""
    values = [_line(board, name)["costs"].get(key) for board in boards]
    return None if None in values or not values else sum(values) / len(values)


def mean_score(boards: Sequence[Board], name: str, metric: Mapping[str, Any]) -> float:
    """A contestant's score on average over the boards, turned so that more is better."""
    values = [_line(board, name)["score"]["value"] for board in boards]
    sign = 1 if metric["higher_is_better"] else -1
    undefined = any(value is None or math.isnan(value) for value in values)
    return -math.inf if undefined else sign * sum(values) / len(values)


def _sentence(boards: Sequence[Board], fit: list[str], cheapest: Mapping[str, Mapping[str, Any]]) -> str:
    if not any(line["status"] == "done" for board in boards for line in board["lines"]):
        return "No contestant finished: there is nothing to compare."
    where = "" if len(boards) == 1 else f" on any of {len(boards)} boards"
    if not fit:
        return "No contestant holds everywhere: each is shown to be worse than the best of some board."
    bests = {board["best"] for board in boards if board["best"]}
    best = f"the best, {bests.pop()}" if len(bests) == 1 else "the best"
    if len(fit) == 1:
        return f"{fit[0]} is the only one not shown to be worse than {best}{where}."
    store, train = (cheapest.get(key) for key in ("stored_bytes", "training_seconds"))
    told = [f"{each['contestant']} is the cheapest {words} ({each['shown']})"
            for each, words in ((store, "to store"), (train, "to train")) if each]  # fmt: skip
    return f"{' and '.join(told)} of those not shown to be worse than {best}{where}."


def _doubled(boards: Sequence[Board]) -> str:
    """Which differences that were not shown would be, if they stood with twice the test items and seeds."""
    would, open_ = [], 0
    for board in boards:
        for pair in board["pairs"]:
            found = pair["comparison"]
            if found["outcome"] != "no difference shown" or found["smallest"] is None:
                continue
            open_ += 1
            if abs(found["difference"]["value"] or 0.0) >= found["smallest"] / math.sqrt(2):
                would.append(f"{pair['a']} against {pair['b']} on {board['id']}")
    if not open_:
        return "Nothing is open: every pair was told apart or is the same."
    if not would:
        return (
            f"{open_} pairs are open, and twice the test items and seeds would likely settle none of them: "
            "the differences seen are too small."
        )
    settled = f"Twice the test items and seeds would likely settle {len(would)} of {open_} open pairs"
    return f"{settled}: {_listed(would[:6])}."


def _line(board: Board, name: str) -> Mapping[str, Any]:
    return next(line for line in board["lines"] if line["contestant"] == name)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
