"""Two systems on the same items: difference, interval, test, flips, and a verdict whose words follow the numbers."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from graft.statistics.bootstrap import Interval, interval, paired_bootstrap, smallest_difference
from graft.statistics.measure import Array, Measure, Record
from graft.statistics.pairing import Item, paired
from graft.statistics.permutation import paired_permutation

Outcome = Literal["better", "worse", "no difference shown", "same", "undefined"]
MINUS = "−"


@dataclass(frozen=True)
class Flips:
    """Items whose own score moved by more than `tolerance`: wrong to right and back or, if graded, better and worse.

    Of several runs it is the median of the item's scores that moves: a majority of the runs.
    """

    improved: list[Item]
    worsened: list[Item]
    unchanged: int
    unscored: int  # items without a score of their own on either side
    tolerance: float


@dataclass(frozen=True)
class Comparison:
    """`other` against `base` on one metric.

    `p` is of the paired permutation test and, where seeds are counted, of the test over seeds and items if that is the
    larger (`graft.statistics.seeds`); until `adjusted` replaces it.
    """

    metric: str
    unit: str
    higher_is_better: bool
    items: int
    base: Interval
    other: Interval
    difference: Interval  # other − base, in the metric's unit
    p: float
    flips: Flips | None  # None where the metric has no score per item
    smallest: float  # what this many items, and runs, could have shown with a power of 0.8
    level: float
    resamples: int
    seed: int
    runs: tuple[int, int] | None = None  # seeds of base and other; None: seeds were not in question

    @property
    def outcome(self) -> Outcome:
        """Better or worse only when the interval excludes zero and p ≤ 1 − level: both, not either."""
        if self.difference.reason is not None or math.isnan(self.p):
            return "undefined"
        low, high = self.difference.low, self.difference.high
        if self.difference.value == self.difference.error == 0:
            return "same"
        if self.p > 1 - self.level + 1e-12 or low <= 0 <= high:
            return "no difference shown"
        return "better" if (low > 0) == self.higher_is_better else "worse"

    @property
    def verdict(self) -> str:
        """The outcome as a sentence, with its numbers."""
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        match self.outcome:
            case "undefined":
                return f"no comparison: {self.difference.reason or 'the test has no p-value'}"
            case "same":
                return f"no difference: the scores are equal on {_items(self.items, all_of_them=True)}"
            case "no difference shown":
                shown = _numbers([value, low, high, self.smallest], self.unit)
                least = "none" if self.unit == "%" and self.smallest > 100 else shown[3]
                could = f"; {self._size()} can show {least}" if math.isfinite(self.smallest) else ""
                return (
                    f"no difference shown (Δ = {shown[0]}, interval {shown[1]} to {shown[2]}{could}){self._uncounted()}"
                )
            case outcome:
                # "better by" a negative number would say it twice: sizes, smaller bound first.
                size, small, large = _numbers([abs(value), *sorted((abs(low), abs(high)))], self.unit)
                return f"{outcome} by {size} ({small} to {large}), {_probability(self.p)}{self._uncounted()}"

    def adjusted(self, p: float) -> "Comparison":
        """The same comparison with a p-value corrected for many comparisons."""
        return replace(self, p=p)

    def reversed(self) -> "Comparison":
        """`base` against `other`: what was better is worse. A reason keeps its words."""
        found = self.difference
        turned = replace(found, value=0.0 - found.value, low=0.0 - found.high, high=0.0 - found.low)
        flips = self.flips and replace(self.flips, improved=self.flips.worsened, worsened=self.flips.improved)
        runs = self.runs and (self.runs[1], self.runs[0])
        return replace(self, base=self.other, other=self.base, difference=turned, flips=flips, runs=runs)

    def as_json(self) -> dict[str, Any]:
        """All fields with outcome and verdict; NaN becomes None."""
        sides = {name: getattr(self, name).as_json() for name in ("base", "other", "difference")}
        numbers = {name: _or_none(getattr(self, name)) for name in ("p", "smallest")}
        return asdict(self) | sides | numbers | {"outcome": self.outcome, "verdict": self.verdict}

    def _size(self) -> str:
        if self.runs is None or self.runs == (1, 1):
            return _items(self.items)
        few, many = sorted(self.runs)
        return f"{_items(self.items)} and {few if few == many else f'{few} and {many}'} runs"

    def _uncounted(self) -> str:
        """What a reader must know where the luck of a seed is not in the numbers."""
        if self.runs is None or 1 not in self.runs:
            return ""
        who = "one run each" if self.runs == (1, 1) else f"{('base', 'other')[self.runs.index(1)]} is one run"
        return f"; {who}: the luck of the seed is not counted"


def compare(
    metric: Measure,
    base_records: Sequence[Record],
    other_records: Sequence[Record],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Score two systems on the same items and compare them; the order of the records does not matter."""
    pair = paired(base_records, other_records)
    base, other = metric.statistics(pair[0]), metric.statistics(pair[1])
    difference = paired_bootstrap(metric, base, other, resamples=resamples, level=level, seed=seed)
    return Comparison(
        metric=metric.name,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        items=len(base),
        base=interval(metric, base, resamples=resamples, level=level, seed=seed),
        other=interval(metric, other, resamples=resamples, level=level, seed=seed),
        difference=difference,
        p=paired_permutation(metric, base, other, resamples=resamples, seed=seed),
        flips=flips_of(metric, [base], [other], [record["item"] for record in pair[0]], None),
        smallest=smallest_difference(len(base), difference.error * math.sqrt(len(base)), level=level),
        level=level,
        resamples=resamples,
        seed=seed,
    )


def flips(
    base_records: Sequence[Record], other_records: Sequence[Record], metric: Measure, *, tolerance: float | None = None
) -> Flips | None:
    """Which items changed, each way; None for a metric without item scores. Tolerance defaults to the metric's own."""
    pair = paired(base_records, other_records)
    names = [record["item"] for record in pair[0]]
    return flips_of(metric, [metric.statistics(pair[0])], [metric.statistics(pair[1])], names, tolerance)


def flips_of(
    metric: Measure, base: Sequence[Array], other: Sequence[Array], names: Sequence[Item], tolerance: float | None
) -> Flips | None:
    """`flips` from the statistics of the runs of both systems, items in the order of their names."""
    tolerance = metric.tolerance if tolerance is None else tolerance
    scores = [[metric.items(run) for run in runs] for runs in (base, other)]
    known = [[run for run in runs if run is not None] for runs in scores]
    if [len(runs) for runs in known] != [len(runs) for runs in scores]:
        return None
    before, after = (np.median(runs, axis=0) for runs in known)
    gain = (after - before) * (1 if metric.higher_is_better else -1)
    improved, worsened = (
        [names[int(row)] for row in np.flatnonzero(side)] for side in (gain > tolerance, gain < -tolerance)
    )
    unscored = int(np.isnan(gain).sum())
    return Flips(improved, worsened, len(names) - unscored - len(improved) - len(worsened), unscored, tolerance)


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _items(count: int, all_of_them: bool = False) -> str:
    if count == 1:
        return "the one item" if all_of_them else "1 item"
    return f"all {count} items" if all_of_them else f"{count} items"


def _numbers(values: Sequence[float], unit: str) -> list[str]:
    """The values with the decimals it takes that none but a zero reads as zero; at least 1 for percent, else 3."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    least = 1 if unit == "%" else 3
    digits = max(least, min(6, -math.floor(math.log10(min(sizes))))) if sizes else least
    return [
        f"{value:.{digits}f}".replace("-", MINUS) if float(f"{value:.{digits}f}") else f"{0:.{digits}f}"
        for value in values
    ]


def _probability(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {float(f'{p:.1g}') if p < 0.01 else round(p, 3):.4f}".rstrip("0")
