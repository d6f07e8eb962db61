"""Confidence intervals: the paired bootstrap over items, and the smallest difference a test set can show.

Items are drawn with replacement, the same draw for both systems (Koehn 2004, "Statistical significance tests for
machine translation evaluation"). Quantiles of the draws make the interval, corrected twice:

- *expanded* (Hesterberg 2015, "What teachers should know about the bootstrap"): plain quantiles are as narrow as a
  normal interval with a variance divided by n instead of n − 1; the wider ones match Student's t on small test sets;
- *bias-corrected* (Efron 1981): a resample has fewer distinct items, which moves scores such as macro F1 over many
  classes or the calibration error to one side; the quantiles are shifted by where the score lies among its draws.
  (Macro F1 of 50 classes on 200 items: plain 95 % intervals held the true score 63 times in 100, these 92.)
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graft.errors import BadInput
from graft.statistics.measure import Array, Measure, same_shape

CELLS = 2_000_000  # of the weight matrix held at once: 16 MB
FEWEST = 0.001  # the least share of draws that is taken to lie on either side of the score
UNDEFINED = 0.05  # the share of resamples without a score above which there is no interval


@dataclass(frozen=True)
class Interval:
    """A value with its interval and standard error, in the metric's unit; NaN, with the reason, where there is none."""

    value: float
    low: float
    high: float
    error: float
    reason: str | None = None
    runs: int | None = None  # over how many seeds; their luck is counted from 2 on. None: seeds were not in question

    def as_json(self) -> dict[str, float | str | None]:
        """The fields by name; NaN and infinity become None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high, "error": self.error}
        return {key: number if math.isfinite(number) else None for key, number in numbers.items()} | {
            "reason": self.reason,
            "runs": self.runs,
        }


def nowhere(value: float, reason: str, runs: int | None = None) -> Interval:
    """A value without an interval."""
    return Interval(value, math.nan, math.nan, math.nan, reason, runs)


def interval(
    metric: Measure, statistics: Array, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The score of one system with its interval over items.

    A proportion gets Wilson's interval, which also holds where all items are right; everything else the bootstrap's.
    """
    value, reason = metric.aggregate(statistics), metric.reason(statistics)
    if reason is not None:
        return nowhere(value, reason)
    if metric.proportion:
        low, high = wilson(value, len(statistics), level)
        return Interval(value, low, high, math.sqrt(value * (100 - value) / len(statistics)))
    return _interval(value, drawn(metric, [statistics], resamples, seed)[0], len(statistics), level)


def paired_bootstrap(
    metric: Measure, base: Array, other: Array, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The difference other − base with its interval; both are (n, d) statistics of the same items in order."""
    same_shape(base, other)
    value = metric.aggregate(other) - metric.aggregate(base)
    reason = undefined(metric, base, other)
    if reason:
        return nowhere(value, reason)
    draws_base, draws_other = drawn(metric, [base, other], resamples, seed)
    return _interval(value, draws_other - draws_base, len(base), level)


def undefined(metric: Measure, base: Array, other: Array) -> str | None:
    """Why the two cannot be compared, or None."""
    sides = [(side, metric.reason(statistics)) for side, statistics in (("base", base), ("other", other))]
    return "; ".join(f"{side}: {reason}" for side, reason in sides if reason) or None


def smallest_difference(items: int, deviation: float, *, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest true difference that a paired comparison of this many items shows with this power.

    deviation: standard deviation over items of the paired difference (for a score that is no mean: the standard error
    of the difference times √items). It is (t(level) + t(power)) · deviation / √items, in the metric's unit. NaN for
    fewer than two items or no deviation: equal outputs tell nothing about what could have been shown.
    """
    if not 0 < power < 1 or not 0 < level < 1:
        raise BadInput(f"power and level must lie between 0 and 1, got {power} and {level}. Try 0.8 and 0.95.")
    if items < 2 or not deviation > 0:
        return math.nan
    from scipy.stats import t

    return float((t.ppf((1 + level) / 2, items - 1) + t.ppf(power, items - 1)) * deviation / math.sqrt(items))


def drawn(metric: Measure, systems: Sequence[Array], resamples: int, seed: int) -> list[Array]:
    """The scores of each system, (n, d) statistics of the same items, under the same resamples: (resamples,) each."""
    if resamples < 100:
        raise BadInput(f"an interval needs at least 100 resamples, got {resamples}. Try 2000.")
    scores = [
        [metric.weighted(system, weights) for system in systems]
        for weights in _weights(len(systems[0]), resamples, seed)
    ]
    return [np.concatenate(chunk) for chunk in zip(*scores, strict=True)]


def unusable(draws: Array, items: int) -> str | None:
    """Why no interval can be read from these draws, of which some may be NaN, or None."""
    if items < 2:
        return "one item has no interval"
    lost = 1 - np.isfinite(draws).mean()
    return (
        f"the metric is undefined in {lost:.0%} of resamples: too few items of some kind" if lost > UNDEFINED else None
    )


def quantiles(value: float, draws: Array, items: int, level: float) -> tuple[float, float, float]:
    """The interval's low end, middle and high end: expanded and bias-corrected quantiles of the finite draws."""
    from scipy.stats import norm, t

    usable = draws[np.isfinite(draws)]
    width = math.sqrt(items / (items - 1)) * t.ppf((1 + level) / 2, items - 1)
    # Ties, the rule for right-or-wrong scores, count half; a score beyond its draws must not send both ends one way.
    below = float(np.mean(usable < value) + np.mean(usable == value) / 2)
    shift = 2 * norm.ppf(min(max(below, FEWEST), 1 - FEWEST))
    low, middle, high = np.quantile(usable, norm.cdf([shift - width, shift, shift + width]))
    return float(low), float(middle), float(high)


def wilson(value: float, items: float, level: float) -> tuple[float, float]:
    """Wilson's (1927) interval of a proportion in percent, of a number of independent items that may be a fraction."""
    from scipy.stats import norm

    share, z = value / 100, float(norm.ppf((1 + level) / 2))
    middle, stretch = share + z * z / (2 * items), 1 + z * z / items
    half = z * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    low = 0.0 if share == 0 else (middle - half) / stretch
    high = 1.0 if share == 1 else (middle + half) / stretch
    return 100 * low, 100 * high


def _interval(value: float, draws: Array, items: int, level: float) -> Interval:
    reason = unusable(draws, items)
    if reason is not None:
        return nowhere(value, reason)
    low, _, high = quantiles(value, draws, items, level)
    return Interval(value, low, high, float(draws[np.isfinite(draws)].std()) * math.sqrt(items / (items - 1)))


def _weights(items: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each item is drawn in each resample, in chunks of (r, items)."""
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // items)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        picked = generator.integers(0, items, (count, items)) + items * np.arange(count)[:, None]
        yield np.bincount(picked.ravel(), minlength=count * items).reshape(count, items).astype(np.float64, order="F")
