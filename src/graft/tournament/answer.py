"""The answer: who is cheapest among those not shown to be worse than the best, by each cost, and what is still open."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Board = Mapping[str, Any]

COSTS = {
    "trainable": "to train in parameters", "stored_bytes": "to store", "training_seconds": "in training time",
    "peak_bytes": "in memory while training", "flops": "in arithmetic", "latency_ms": "to answer with",
}  # fmt: skip


def answered(boards: Sequence[Board], metric: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence, the cheapest and the Pareto set by each cost, and what a doubled budget would likely settle."""
    fit = eligible(boards)
    cheapest = {}
    for cost, words in COSTS.items():
        known = {name: value for name in fit if (value := mean_cost(boards, name, cost)) is not None}
        if known:
            name = min(known, key=lambda each: (known[each], -mean_score(boards, each, metric), each))
            cheapest[cost] = {"contestant": name, "value": known[name],
                              "sentence": f"{name} is the cheapest {words} ({amount(cost, known[name])})."}  # fmt: skip
    return {
        "sentence": _sentence(boards, metric, fit, cheapest),
        "eligible": fit,
        "cheapest": cheapest,
        "pareto": {cost: front(boards, metric, cost) for cost in COSTS},
        "doubled": _doubled(boards),
    }


def eligible(boards: Sequence[Board]) -> list[str]:
    """Contestants that are done on every board and not shown to be worse than its best on any."""
    names = [line["contestant"] for line in boards[0]["lines"]] if boards else []
    return [name for name in names if all(_line(board, name)["equal_to_best"] for board in boards)]


def front(boards: Sequence[Board], metric: Mapping[str, Any], cost: str) -> list[str]:
    """The Pareto set: nobody else is at least as good and as cheap, and better or cheaper; from cheap to dear."""
    names = [line["contestant"] for line in boards[0]["lines"]] if boards else []
    points = [
        (value, -mean_score(boards, name, metric), name)
        for name in names
        if all(_line(board, name)["status"] == "done" for board in boards)
        and (value := mean_cost(boards, name, cost)) is not None
    ]
    found, best = [], math.inf
    for _, loss, name in sorted(points):
        if loss < best:
            found.append(name)
            best = loss
    return found


def mean_cost(boards: Sequence[Board], name: str, cost: str) -> float | None:
    """A contestant's cost, on average over the boards; None where one has none."""
    values = [_line(board, name)["costs"].get(cost) for board in boards]
    return None if None in values or not values else sum(values) / len(values)


def mean_score(boards: Sequence[Board], name: str, metric: Mapping[str, Any]) -> float:
    """A contestant's score on average over the boards, turned so that more is better."""
    values = [_line(board, name)["score"]["value"] for board in boards]
    sign = 1 if metric["higher_is_better"] else -1
    undefined = any(value is None or math.isnan(value) for value in values)
    return -math.inf if undefined else sign * sum(values) / len(values)


def amount(cost: str, value: float) -> str:
    """A cost with its unit, for people."""
    if cost.endswith("bytes"):
        power = min(int(math.log(max(value, 1), 1024)), 4)
        return f"{value / 1024**power:,.{0 if power == 0 else 1}f} {['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}"
    if cost == "training_seconds":
        return f"{value:,.1f} s"
    if cost == "latency_ms":
        return f"{value:,.1f} ms"
    return f"{value:,.3g}" if cost == "flops" else f"{value:,.0f}"


def _sentence(
    boards: Sequence[Board], metric: Mapping[str, Any], fit: list[str], cheapest: Mapping[str, Mapping[str, Any]]
) -> str:
    done = [line for board in boards for line in board["lines"] if line["status"] == "done"]
    if not done:
        return "No contestant finished: there is nothing to compare."
    where = "" if len(boards) == 1 else f" on all {len(boards)} boards"
    if not fit:
        return f"No contestant holds{where}: each is shown to be worse than the best on some board."
    by_kind: dict[str, list[str]] = {}
    for cost, found in cheapest.items():
        by_kind.setdefault(found["contestant"], []).append(f"{COSTS[cost]} ({amount(cost, found['value'])})")
    told = "; ".join(f"{name} is the cheapest {_listed(kinds)}" for name, kinds in by_kind.items())
    bests = sorted({board["best"] for board in boards if board["best"]})
    against = f"the best, {bests[0]}" if len(bests) == 1 else "the best of each board"
    return f"Of those not shown to be worse than {against}{where}: {told}."


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
