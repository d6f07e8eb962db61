"""What each contestant may try, and which trials come next: successive halving, told from the results alone.

All candidates train for a short share of the full length, with the first seed; the better half by the validation
score trains for twice as long, and so on (Jamieson and Talwalkar 2016, arXiv 1502.07943). The one that is left trains
in full with every seed and is tested once. Nothing is remembered but results: who is killed begins where they end.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graft.method import Method
from graft.tournament.contestant import Contestant
from graft.tournament.design import Design, Place, Trial, decisive

RATES = (1.0, 3.0, 1 / 3, 10.0, 0.1, 30.0)  # of the learning rate, relative to the method's own
Candidate = tuple[tuple[str, Any], ...]
Results = Mapping[str, dict[str, Any]]


def candidates(contestant: Contestant, most: int) -> list[Candidate]:
    """At most so many settings to try, the contestant as it stands first.

    A method's space is its learning rate; an entrant declares its own. Settings that were given are not searched.
    """
    way = contestant.way
    if isinstance(way, Method):
        if contestant.rate is not None:
            return [(("lr", contestant.rate),)]
        return [(("lr", round(way.learning_rate * factor, 10)),) for factor in RATES[:most]]
    free = {name: values for name, values in way.search.items() if name not in contestant.given}
    combinations = (tuple(zip(free, values, strict=True)) for values in itertools.product(*free.values()))
    return list(itertools.islice(combinations, most)) or [()]


def shares(count: int) -> list[float]:
    """The rungs of a search over `count` candidates, as shares of the full length: 4 candidates, [1/4, 1/2]."""
    rungs = math.ceil(math.log2(count)) if count > 1 else 0
    return [2.0 ** (rung - rungs) for rung in range(rungs)]


@dataclass(frozen=True)
class Course:
    """A contestant's way through one board, as far as the results go. `rungs`: the trials of the search; `chosen`: the
    candidate that won it; `final`: its trials; `waiting`: those of all these that can run now."""

    rungs: list[Trial]
    chosen: Candidate | None
    final: list[Trial]
    waiting: list[Trial]


def course(design: Design, place: Place, contestant: Contestant, facts: str, results: Results,
           higher_is_better: bool) -> Course:  # fmt: skip
    """Follow a contestant through search and final trials. `facts`: what decides results at this place."""
    options = decisive(design)

    def trial(candidate: Candidate, seed: int, share: float, final: bool = False) -> Trial:
        return Trial(place, contestant, candidate, seed, share, final, facts, options)

    field = candidates(contestant, design.trials)
    tried: list[Trial] = []
    for share in _rungs(contestant, len(field)):
        rung = [trial(candidate, design.seeds[0], share) for candidate in field]
        tried += rung
        if missing := [each for each in rung if each.id not in results]:
            return Course(tried, None, [], missing)
        ranked = sorted((merit, at) for at, each in enumerate(rung)
                        if (merit := _merit(results[each.id], higher_is_better)) is not None)  # fmt: skip
        kept = math.ceil(len(field) / 2) if _graded(contestant) else 1
        field = [field[at] for _, at in ranked[:kept]]
    if not field:
        return Course(tried, None, [], [])
    final = [trial(field[0], seed, 1.0, final=True) for seed in _seeds(design, contestant)]
    return Course(tried, field[0], final, [each for each in final if each.id not in results])


def expected(design: Design, contestant: Contestant) -> int:
    """How many trials a contestant has on one board."""
    count, trials = len(candidates(contestant, design.trials)), len(_seeds(design, contestant))
    for _ in _rungs(contestant, count):
        trials, count = trials + count, math.ceil(count / 2)
    return trials


def _rungs(contestant: Contestant, count: int) -> list[float]:
    if _graded(contestant):
        return shares(count)
    return [1.0] if count > 1 else []


def _graded(contestant: Contestant) -> bool:
    """Whether a share of the length means anything: an entrant is fitted in full or not at all."""
    return isinstance(contestant.way, Method)


def _seeds(design: Design, contestant: Contestant) -> tuple[int, ...]:
    seeded = isinstance(contestant.way, Method) or contestant.way.seeded
    return design.seeds if seeded else design.seeds[:1]


def _merit(result: dict[str, Any], higher_is_better: bool) -> tuple[float, float] | None:
    """How a candidate ranks, the least first: by its validation score, and where that is equal by its loss."""
    value, loss = result.get("validation"), result.get("validation_loss")
    if value is None:
        return None
    return -value if higher_is_better else value, math.inf if loss is None else loss
