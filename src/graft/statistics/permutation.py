"""Paired permutation test, for any metric, and Holm's correction.

If the two systems were alike, then which of an item's two outputs came from which would be chance. So the test swaps
them item by item, by whole rows of statistics, and asks how often a difference at least as large comes out (Fisher
1935; for scores of whole corpora Riezler and Maxwell 2005, "approximate randomization"). Systems of several runs swap
an item in all their runs at once.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from graft.errors import BadInput
from graft.statistics.bootstrap import CELLS, undefined
from graft.statistics.measure import Array, Measure, same_shape

EXACT = 14  # at most this many differing items are enumerated, in 2^13 swaps


def paired_permutation(metric: Measure, base: Array, other: Array, *, resamples: int = 2000, seed: int = 0) -> float:
    """The two-sided p-value of "no difference"; base and other are (n, d) statistics of the same items in order.

    Exact when at most 14 items differ; otherwise (k + 1) / (resamples + 1), whose least value is 1 / (resamples + 1)
    (Phipson and Smyth 2010). 1 when no item differs; NaN when the metric is undefined for either system.
    """
    return permuted_runs(metric, [base], [other], resamples=resamples, seed=seed)


def permuted_runs(
    metric: Measure, base: Sequence[Array], other: Sequence[Array], *, resamples: int = 2000, seed: int = 0,
    until: float = 1.0,
) -> float:  # fmt: skip
    """`paired_permutation` for the mean score over runs, of which both systems have equally many.

    It takes the runs as they are: it is no test of whether other seeds would have ordered the systems the same way.
    until: a p-value above which it is of no interest how large it is; where it is sure to be above, the test ends.
    """
    for left, right in zip(base, other, strict=True):
        same_shape(left, right)
    if resamples < 100:
        raise BadInput(f"a permutation test needs at least 100 resamples, got {resamples}. Try 2000.")
    if any(undefined(metric, left, right) for left, right in zip(base, other, strict=True)):
        return math.nan
    differ = np.any([(left != right).any(axis=1) for left, right in zip(base, other, strict=True)], axis=0)
    if not differ.any():
        return 1.0
    scores = [sum(metric.aggregate(run) for run in runs) / len(runs) for runs in (base, other)]
    # A swap that gives the same difference in exact arithmetic must count, whatever the order of its sums.
    observed = abs(scores[1] - scores[0]) - 1e-9 * max(abs(scores[0]), abs(scores[1]))
    at = np.flatnonzero(differ)  # swapping equal rows does nothing
    exact = len(at) <= EXACT
    masks = _every_swap(len(at)) if exact else _random_swaps(len(at), resamples, len(differ) + len(at), seed)
    extreme = total = 0
    for mask in masks:
        difference = sum(
            metric.swapped(right, left, at, mask) - metric.swapped(left, right, at, mask)
            for left, right in zip(base, other, strict=True)
        )
        # A swap without a score is counted against the difference.
        extreme += int((~(np.abs(difference) / len(base) < observed)).sum())
        total += len(mask)
        if not exact and extreme > until * resamples:
            break
    return extreme / total if exact else (extreme + 1) / (total + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the given order: comparable with the level for all hypotheses at once.

    NaN (a comparison that could not be made) stays NaN and does not count as a hypothesis.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    floor = 0.0
    for rank, i in enumerate(order):
        if not 0 <= p_values[i] <= 1:
            raise BadInput(f"a p-value lies between 0 and 1, got {p_values[i]} at position {i}.")
        floor = max(floor, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def _every_swap(items: int) -> Iterator[Array]:
    """All swaps but for mirror images, which give the same difference with its sign turned: (2^(items − 1), items)."""
    numbers = np.arange(2 ** (items - 1))
    yield ((numbers[:, None] >> np.arange(items)) & 1).astype(np.float64)


def _random_swaps(items: int, resamples: int, width: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // width)
    for start in range(0, resamples, step):
        yield generator.integers(0, 2, (min(step, resamples - start), items)).astype(np.float64)
