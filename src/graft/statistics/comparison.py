"""Two systems on the same items: difference, interval, test, flips, and a verdict whose words follow the numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from graft.errors import BadInput
from graft.statistics.bootstrap import Interval, interval, paired_bootstrap, smallest_difference
from graft.statistics.measure import Array, Measure, Record
from graft.statistics.permutation import paired_permutation

Item = int | str
Outcome = Literal["better", "worse", "no difference shown", "same", "undefined"]
MINUS = "−"
SHOWN = 5


@dataclass(frozen=True)
class Flips:
    """Items whose own score moved by more than `tolerance`: wrong to right and back or, if graded, better and worse."""

    improved: list[Item]
    worsened: list[Item]
    unchanged: int
    unscored: int  # items without a score of their own on either side
    tolerance: float


@dataclass(frozen=True)
class Comparison:
    """`other` against `base` on one metric; `p` is of the paired permutation test until `adjusted` replaces it."""

    metric: str
    unit: str
    higher_is_better: bool
    items: int
    base: Interval
    other: Interval
    difference: Interval  # other − base, in the metric's unit
    p: float
    flips: Flips | None  # None where the metric has no score per item
    smallest: float  # what this many items could have shown with a power of 0.8
    level: float
    resamples: int
    seed: int

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
                could = f"; {_items(self.items)} can show {shown[3]}" if math.isfinite(self.smallest) else ""
                return f"no difference shown (Δ = {shown[0]}, interval {shown[1]} to {shown[2]}{could})"
            case outcome:
                # "better by" a negative number would say it twice: sizes, smaller bound first.
                size, small, large = _numbers([abs(value), *sorted((abs(low), abs(high)))], self.unit)
                return f"{outcome} by {size} ({small} to {large}), {_probability(self.p)}"

    def adjusted(self, p: float) -> "Comparison":
        """The same comparison with a p-value corrected for many comparisons."""
        return replace(self, p=p)

    def as_json(self) -> dict[str, Any]:
        """All fields with outcome and verdict; NaN becomes None."""
        sides = {name: getattr(self, name).as_json() for name in ("base", "other", "difference")}
        numbers = {name: _or_none(getattr(self, name)) for name in ("p", "smallest")}
        return asdict(self) | sides | numbers | {"outcome": self.outcome, "verdict": self.verdict}


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
        flips=_flips(metric, base, other, [record["item"] for record in pair[0]], None),
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
    return _flips(metric, metric.statistics(pair[0]), metric.statistics(pair[1]), names, tolerance)


def paired(base_records: Sequence[Record], other_records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Both systems' records in the order of their items.

    Raises BadInput unless both have the same items, each once, with the same references.
    """
    base, other = _by_item("base", base_records), _by_item("other", other_records)
    problems = [
        f"{len(missing)} items only in {side}: {_some(missing)}"
        for side, missing in (("base", base.keys() - other.keys()), ("other", other.keys() - base.keys()))
        if missing
    ]
    differ = [
        item
        for item in base.keys() & other.keys()
        if not _same(base[item].get("reference"), other[item].get("reference"))
    ]
    if differ:
        problems.append(f"{len(differ)} items have another reference: {_some(differ)}")
    if problems:
        raise BadInput(
            f"these are not two outputs for one test set: {'; '.join(problems)}. Score both on the same items."
        )
    order = _ordered(base)
    return [base[item] for item in order], [other[item] for item in order]


def _flips(metric: Measure, base: Array, other: Array, names: Sequence[Item], tolerance: float | None) -> Flips | None:
    tolerance = metric.tolerance if tolerance is None else tolerance
    before, after = metric.items(base), metric.items(other)
    if before is None or after is None:
        return None
    gain = (after - before) * (1 if metric.higher_is_better else -1)
    improved, worsened = (
        [names[int(row)] for row in np.flatnonzero(side)] for side in (gain > tolerance, gain < -tolerance)
    )
    unscored = int(np.isnan(gain).sum())
    return Flips(improved, worsened, len(names) - unscored - len(improved) - len(worsened), unscored, tolerance)


def _by_item(side: str, records: Sequence[Record]) -> Mapping[Item, Record]:
    without = sum("item" not in record for record in records)
    if without:
        raise BadInput(
            f"{without} of {len(records)} {side} records have no 'item', by which the two systems are paired."
        )
    found = {record["item"]: record for record in records}
    if len(found) < len(records):
        seen: set[Item] = set()
        twice = {record["item"] for record in records if record["item"] in seen or seen.add(record["item"])}  # type: ignore[func-returns-value]
        raise BadInput(f"{side} has items more than once: {_some(twice)}. Give each record its own item.")
    return found


def _ordered(items: Any) -> list[Item]:
    return sorted(items, key=lambda item: (isinstance(item, str), item))


def _some(items: Any) -> str:
    ordered = _ordered(items)
    return ", ".join(str(item) for item in ordered[:SHOWN]) + (", …" if len(ordered) > SHOWN else "")


def _same(left: Any, right: Any) -> bool:
    # References may come back from a file as arrays, and NaN equals nothing.
    return left is right or bool(np.array_equal(np.asarray(left, dtype=object), np.asarray(right, dtype=object)))


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
