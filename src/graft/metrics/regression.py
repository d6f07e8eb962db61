"""Correlation of predicted with given numbers: Pearson and Spearman, in percent as GLUE reports them.

A row is (output, reference). Equal to scipy's `pearsonr` and `spearmanr` times 100, on every resample too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from graft.metrics import _record
from graft.metrics._metric import Array, Metric, Record, rows


@dataclass(frozen=True, kw_only=True)
class Correlation(Metric):
    """Pearson's correlation, or Spearman's: Pearson's of the ranks, ties sharing their mean rank."""

    ranks: bool = False

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs = _record.read(self.name, records, "output", _record.number)
        references = _record.read(self.name, records, "reference", _record.number)
        return rows(list(zip(outputs, references, strict=True)), 2)

    def _weighted(self, statistics: Array, weights: Array) -> Array:
        if self.ranks:
            return _correlation(_ranks(statistics[:, 0], weights), _ranks(statistics[:, 1], weights), weights)
        # A correlation ignores shift and scale; removing them first keeps the sums of squares accurate.
        centered = statistics - statistics.mean(axis=0)
        scale = np.abs(centered).max(axis=0)
        x, y = (centered / np.where(scale > 0, scale, 1)).T
        return _correlation(x, y, weights)

    def why(self, statistics: Array) -> str:
        if len(statistics) == 1:
            return "a correlation needs more than one item"
        constant = [
            name for name, column in zip(("output", "reference"), statistics.T, strict=True) if np.ptp(column) == 0
        ]
        return f"every {' and every '.join(constant) or 'pair'} is the same"

    def items(self, statistics: Array) -> Array | None:
        return None


def _correlation(x: Array, y: Array, weights: Array) -> Array:
    """(r,) weighted correlations in percent. x, y: (n,) or (r, n)."""
    total = weights.sum(axis=1)

    def mean(values: Array) -> Array:
        return np.asarray((weights @ values if values.ndim == 1 else (weights * values).sum(axis=1)) / total)

    mean_x, mean_y, square_x, square_y = mean(x), mean(y), mean(x * x), mean(y * y)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    # The variance of a constant comes out as rounding error, not as zero.
    varies = (variance_x > 1e-12 * square_x) & (variance_y > 1e-12 * square_y)
    product = np.sqrt(np.where(varies, variance_x * variance_y, np.nan))
    return np.asarray(100 * np.clip((mean(x * y) - mean_x * mean_y) / product, -1, 1))


def _ranks(values: Array, weights: Array) -> Array:
    """(r, n) ranks, about their middle, of each value among the weighted values; a weight of 2 is two tied items."""
    unique, place = np.unique(values, return_inverse=True)
    member = sparse.csr_array((np.ones(len(values)), (place, np.arange(len(values)))), shape=(len(unique), len(values)))
    tied = (member @ weights.T).T
    below = np.cumsum(tied, axis=1) - tied
    middle = weights.sum(axis=1, keepdims=True) / 2
    return np.asarray((below + tied / 2 - middle)[:, place])


BOUNDS = (-100.0, 100.0)

METRICS = (
    Correlation(name="pearson", title="Pearson correlation", bounds=BOUNDS),
    Correlation(name="spearman", title="Spearman correlation", ranks=True, bounds=BOUNDS),
)
