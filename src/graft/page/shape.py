"""What standings look like, as one table, and what is wrong with some that do not: whoever wrote them, the page holds.

A type is a value, and a tuple one of several; {...} an object with these keys, where "key?" may be missing or null and
"*" stands for every other key; [each] a list. Keys that the table does not name are not looked at.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

NUMBER = (int, float)
LARGEST = 1e300  # whatever is larger is a mistake, and arithmetic with it would overflow
STATUSES = ("done", "failed", "refused")

_INTERVAL = {"value?": NUMBER, "low?": NUMBER, "high?": NUMBER, "error?": NUMBER, "runs?": int, "reason?": str}
_COMPARISON = {
    "verdict": str, "outcome": str, "base?": _INTERVAL, "other?": _INTERVAL, "difference?": _INTERVAL, "p?": NUMBER,
    "smallest?": NUMBER, "items?": int, "level?": NUMBER,
    "flips?": {"improved": (int, list), "worsened": (int, list), "unchanged?": int, "unscored?": int},
}  # fmt: skip
_COST = (int, float, {"before?": NUMBER, "after?": NUMBER, "change?": _INTERVAL})  # a number, or one with an interval
_LINE = {
    "contestant": str, "status": str, "error?": str, "score?": _INTERVAL, "metrics?": {"*": _INTERVAL},
    "costs?": {"*?": _COST}, "spread?": {"*?": [NUMBER]}, "chosen?": {"*?": (str, int, float, bool, list)},
    "equal_to_best?": bool, "against_best?": _COMPARISON, "against_reference?": _COMPARISON,
    "runs?": [{"seed?": int, "score?": NUMBER, "trial?": str}],
    "curve?": [{"seed?": int, "step?": NUMBER, "seconds?": NUMBER, "loss?": NUMBER, "validation_loss?": NUMBER}],
}  # fmt: skip
_BOARD = {
    "id": str, "model": str, "data": str, "size": (int, str, type(None)), "rows": {"*": int}, "task?": str,
    "best?": str, "reference?": str, "lines": [_LINE],
    "pairs?": [{"a": str, "b": str, "p_corrected?": NUMBER, "comparison": _COMPARISON}],
    "card?": {"source?": str, "sha256?": str, "labels?": {"*": int}, "notes?": [str]},
}  # fmt: skip
STANDINGS = {
    "name": str, "command": str, "created?": str, "boards": [_BOARD],
    "metric": {"name": str, "title": str, "unit": str, "higher_is_better": bool},
    "answer": {"sentence": str, "doubled?": str, "eligible?": [str], "pareto?": {"*": [str]},
               "cheapest?": {"*": {"contestant": str, "sentence": str, "shown?": str}}},
    "protocol": {"seeds": [int], "level?": NUMBER, "resamples?": int, "sizes?": [int], "trials?": int, "text?": [str],
                 "training?": dict},
    "contestants": [{"name": str, "kind": str, "family?": str, "summary?": str, "settings?": dict,
                     "searched?": {"*": list}}],
    "trials": [{"id": str, "contestant": str, "board": str, "status": str, "seed?": int, "share?": NUMBER,
                "score?": NUMBER, "validation?": NUMBER, "seconds?": NUMBER, "error?": str, "candidate?": dict,
                "final?": bool}],
    "environment": dict,
    "ranks?": {"average": [NUMBER], "contestants": [str], "groups": [[str]], "critical_difference?": NUMBER,
               "friedman_p?": NUMBER, "boards": int},
    "sweeps?": [{"contestant": str, "board": str, "axes": [{"name": str, "values": list}],
                 "points": [{"at": list, "score?": _INTERVAL, "trainable?": NUMBER}]}],
    "ablations?": [{"contestant": str, "board": str, "layers": [NUMBER],
                    "loss": [{"first": int, "last": int, "change?": NUMBER, "score?": NUMBER}]}],
    "transfer?": [{"contestant": str, "data": [str], "scores": [[(int, float, type(None))]], "model?": str,
                   "size?": (int, str)}],
}  # fmt: skip


def problems(found: Any) -> Iterator[str]:
    """Each place of some standings that is not as in the table, or that names who or what is not there."""
    wrong = list(_differences(found, STANDINGS, ""))
    yield from wrong if wrong else _strangers(found)


def _differences(value: Any, wanted: Any, where: str) -> Iterator[str]:
    if isinstance(wanted, Mapping):
        if isinstance(value, dict):
            yield from _object(value, wanted, where)
        else:
            yield f"{where or 'the whole'} is {_kind(value)} instead of an object"
    elif isinstance(wanted, list):
        if isinstance(value, list):
            for at, each in enumerate(value):
                yield from _differences(each, wanted[0], f"{where}[{at}]")
        else:
            yield f"{where} is {_kind(value)} instead of a list"
    elif isinstance(value, dict) and (objects := [each for each in _choices(wanted) if isinstance(each, Mapping)]):
        yield from _object(value, objects[0], where)
    elif not _fits(value, tuple(each for each in _choices(wanted) if isinstance(each, type))):
        yield f"{where} is {_kind(value)}"


def _choices(wanted: Any) -> tuple[Any, ...]:
    return wanted if isinstance(wanted, tuple) else (wanted,)


def _object(value: dict[str, Any], wanted: Mapping[str, Any], where: str) -> Iterator[str]:
    prefix = f"{where}." if where else ""
    named = {name.removesuffix("?") for name in wanted}
    for name, each in wanted.items():
        key = name.removesuffix("?")
        for held in [held for held in value if held not in named] if key == "*" else [key]:
            if name == key and held not in value:
                yield f"{prefix}{held} is missing"
            elif name == key or value.get(held) is not None:
                yield from _differences(value[held], each, f"{prefix}{held}")
    if "status" in wanted and isinstance(value.get("status"), str) and value["status"] not in STATUSES:
        yield f"{prefix}status is {value['status']!r}, none of {', '.join(STATUSES)}"


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int | float):
        return isinstance(value, kinds) and abs(value) <= LARGEST and math.isfinite(value)
    return isinstance(value, kinds)


def _kind(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "a number too large" if number and abs(value) > LARGEST else type(value).__name__


def _strangers(found: Mapping[str, Any]) -> Iterator[str]:
    """Names of contestants and boards that the standings do not list."""
    names = {each["name"] for each in found["contestants"]}
    boards = {each["id"] for each in found["boards"]}
    for board in found["boards"]:
        for line in board["lines"]:
            if line["contestant"] not in names:
                yield f"board {board['id']!r} has {line['contestant']!r}, who is no contestant"
            yield from (f"the spread of {cost} of {line['contestant']!r} has {len(ends)} ends instead of 2"
                        for cost, ends in (line.get("spread") or {}).items() if ends and len(ends) != 2)  # fmt: skip
        lines = {line["contestant"] for line in board["lines"]}
        told = [(key, board.get(key)) for key in ("best", "reference")]
        told += [("pairs", pair[side]) for pair in board.get("pairs") or [] for side in ("a", "b")]
        yield from (f"board {board['id']!r}: {key} names {name!r}, who is not on it"
                    for key, name in told if name and name not in lines)  # fmt: skip
    for key in ("sweeps", "ablations"):
        yield from (f"{key} names the board {each['board']!r}, which is not there"
                    for each in found.get(key) or [] if each["board"] not in boards)  # fmt: skip
    for each in found.get("transfer") or []:
        if not each["data"] or [len(row) for row in each["scores"]] != [len(each["data"])] * len(each["data"]):
            yield f"transfer of {each['contestant']!r} has no score for each pair of its data sets"
    ranks = found.get("ranks") or {"contestants": [], "groups": [], "average": []}
    if len(ranks["average"]) != len(ranks["contestants"]):
        yield f"ranks has {len(ranks['average'])} averages of {len(ranks['contestants'])} contestants"
    yield from (f"ranks names {name!r}, who is no contestant"
                for name in dict.fromkeys([*ranks["contestants"], *(n for group in ranks["groups"] for n in group)])
                if name not in names)  # fmt: skip
