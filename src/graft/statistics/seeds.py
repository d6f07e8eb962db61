"""Systems of several runs, one per seed: intervals and comparisons that count the luck of seeds as well as of items.

    statistics.interval_runs(metric, [records_of_seed_0, records_of_seed_1, records_of_seed_2])
    statistics.pairs(metric, {"lora": lora_runs, "full": full_runs, "tfidf": [records] * 3})

A system's score is the mean over its runs of the metric's score: an estimate of what another seed would give on other
items. How the two kinds of luck add up is in `graft.statistics.components`. A system that no seed changes is given as
the same run several times; a system of one run is compared on its items alone, and the words say so.

A difference is shown when three agree: the interval over seeds and items, the test over seeds and items, and the
paired permutation test over items (which swaps an item in all runs at once, and guards where few items differ and no
normal theory holds). The p-value is the larger of the two.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from graft.statistics.bootstrap import Interval, nowhere, quantiles, smallest_difference, unusable
from graft.statistics.comparison import Comparison, flips_of
from graft.statistics.components import components, seeded
from graft.statistics.measure import Measure
from graft.statistics.pairing import Item
from graft.statistics.permutation import holm, permuted_runs
from graft.statistics.systems import Runs, Settings, System, load

ENOUGH = 5  # contestants whose runs vary, from which on a test borrows from all of them; with fewer it errs too often


@dataclass(frozen=True)
class _Test:
    """What all pairs of a tournament share: the variance to borrow from, swaps, the p-value above which they may end
    early, and the hardest level of Holm's."""

    shared: float | None
    swaps: int
    until: float
    level: float


def interval_runs(
    metric: Measure, runs: Runs, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The mean score over runs of the same items, with its interval over items and, from two runs on, over seeds.

    With one run it is `interval`, over items only, and `runs` is 1. No score, with the reason, when the metric cannot
    score a run. Raises BadInput for runs of different items.
    """
    return load(Settings(metric, resamples, level, seed), {"system": runs})[0][0].interval


def compare_runs(
    metric: Measure,
    base_runs: Runs,
    other_runs: Runs,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Two systems on the same items, each of one or more runs; as `pairs` for one pair."""
    systems = {"base": base_runs, "other": other_runs}
    return pairs(metric, systems, resamples=resamples, level=level, seed=seed)["base", "other"]


def pairs(
    metric: Measure, systems: Mapping[str, Runs], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[tuple[str, str], Comparison]:
    """Every pair of systems compared, (a, b) with `b` against `a`, all p-values corrected together by Holm's method.

    All systems are resampled with the same weights of items, once. The permutation test takes more swaps than
    `resamples` where the correction for so many pairs would otherwise leave nothing to be found, and is run only for
    pairs that the test over seeds has not already left undecided. `smallest` is what the first, hardest step of the
    correction lets through. Where a system has no run, or one that the metric cannot score, its comparisons are
    undefined and say why. Raises BadInput for runs of different items.
    """
    settings = Settings(metric, resamples, level, seed)
    loaded, names = load(settings, systems)
    couples = list(combinations(loaded, 2))
    variances = [float(system.scores.var(ddof=1)) for system in loaded if not system.reason and seeded(system.draws)]
    test = _Test(
        shared=float(np.mean(variances)) if len(variances) >= ENOUGH else None,
        swaps=(swaps := max(resamples, math.ceil(4 * len(couples) / (1 - level)))),
        until=1 - level if swaps > resamples else 1.0,
        level=1 - (1 - level) / max(1, len(couples)),
    )
    found = {(a.name, b.name): _compared(settings, a, b, names, test) for a, b in couples}
    corrected = holm([comparison.p for comparison in found.values()])
    return {pair: comparison.adjusted(p) for (pair, comparison), p in zip(found.items(), corrected, strict=True)}


def _compared(settings: Settings, base: System, other: System, names: Sequence[Item], test: _Test) -> Comparison:
    metric = settings.metric
    reason = "; ".join(f"{side.name}: {side.reason}" for side in (base, other) if side.reason) or None
    difference, p, smallest, flips = nowhere(math.nan, reason or ""), math.nan, math.nan, None
    if reason is None:
        flips = flips_of(metric, base.runs, other.runs, names, None)
        # Systems of different numbers of runs are matched by repeating them.
        count = math.lcm(len(base.runs), len(other.runs))
        left, right = ([side.runs[at % len(side.runs)] for at in range(count)] for side in (base, other))
        if all(np.array_equal(a, b) for a, b in zip(left, right, strict=True)):
            difference, p = Interval(0.0, 0.0, 0.0, 0.0), 1.0
        else:
            difference, p, smallest = _difference(settings, base, other, test)
        if p <= 1 - settings.level:
            p = max(p, permuted_runs(metric, left, right, resamples=test.swaps, seed=settings.seed, until=test.until))
    return Comparison(
        metric.name, metric.unit, metric.higher_is_better, len(names), base.interval, other.interval, difference, p,
        flips, smallest, settings.level, settings.resamples, settings.seed,
        (base.interval.runs or 0, other.interval.runs or 0),
    )  # fmt: skip


def _difference(settings: Settings, base: System, other: System, test: _Test) -> tuple[Interval, float, float]:
    """other − base: the interval, the p-value over seeds and items, and the smallest difference that could be shown.

    Where no seeds vary the p-value is 0: the permutation test alone decides, as for two single runs.
    """
    level, items = settings.level, len(base.runs[0])
    draws = other.draws.mean(axis=1) - base.draws.mean(axis=1)
    value = float(other.scores.mean() - base.scores.mean())
    reason = unusable(draws, items)
    if reason is not None:
        return nowhere(value, reason), math.nan, math.nan
    low, middle, high = quantiles(value, draws, items, level)
    sides = [(base.scores, base.draws), (other.scores, other.draws)]
    parts = components(sides, items)
    found = Interval(
        value, middle - parts.reach(middle - low, level), middle + parts.reach(high - middle, level), parts.error
    )
    tested = components(sides, items, cautious=True, shared=test.shared)
    if not tested.seeds:
        return found, 0.0, smallest_difference(items, parts.error * math.sqrt(items), level=test.level)
    return found, tested.p(value), tested.smallest(test.level)
