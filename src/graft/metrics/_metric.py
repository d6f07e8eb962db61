"""What a metric is: numbers per item, and a score of any weighting of the items.

Most scores worth reporting (F1, BLEU, perplexity, Pearson) are not means of item scores. So a metric first reduces
each record to *statistics*, a row of numbers that suffices for the score, and then scores any weighting of the rows:
all ones is the test set, counts of a resample are one bootstrap draw, zeros and ones choose between two systems' rows.
Rows of different systems are always comparable: nothing in a row depends on the other rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.errors import BadInput

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """A metric's value over a test set, why it is NaN where it is, and its value per item where it has one."""

    value: float
    reason: str | None
    items: Array | None


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """One metric as a value. Scores are in `unit`; "%" means 0 to 100 (correlations −100 to 100)."""

    name: str
    title: str
    unit: str = "%"
    bounds: tuple[float, float] = (0.0, 100.0)  # between which all scores are
    higher_is_better: bool = True
    right_or_wrong: bool = False  # items() holds only 0 and 100
    proportion: bool = False  # right_or_wrong, and the score is their mean
    tolerance: float = 1.0  # an item has changed when its score moves by more than this, in `unit`

    @property
    def family(self) -> str:
        """The name of the file the metric is written in."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def statistics(self, records: Sequence[Record]) -> Array:
        """(n, d) numbers per item that suffice for the score. Raises BadInput naming every unusable record."""

    @abstractmethod
    def _weighted(self, statistics: Array, weights: Array) -> Array:
        """`weighted`, given at least one item and finite numbers; NaN where the score is undefined."""

    @abstractmethod
    def why(self, statistics: Array) -> str:
        """Why the score of these items is undefined, given that it is."""

    @abstractmethod
    def items(self, statistics: Array) -> Array | None:
        """(n,) score of each item alone, NaN where it has none; None when the metric has no such notion."""

    def narrowed(self, argument: str) -> "Metric":
        """The metric `name:argument`. Raises BadInput for a metric that takes none."""
        raise BadInput(f"metric {self.name!r} takes no argument, got {self.name}:{argument}. Write {self.name!r}.")

    def weighted(self, statistics: Array, weights: Array) -> Array:
        """(r,) scores of r weightings of the items.

        statistics: (n, d); weights: (r, n), not negative. NaN where the score is undefined, and everywhere when a row
        of the statistics is not finite.
        """
        if not len(statistics) or not np.isfinite(statistics).all():
            return np.full(len(weights), np.nan)
        with np.errstate(all="ignore"):
            return self._weighted(statistics, weights)

    def swapped(self, left: Array, right: Array, at: Places, masks: Array) -> Array:
        """(r,) scores of `left` with items of `right` in it: of those `at` some places where a mask (r, places) is 1.

        left, right: (n, d) statistics of two systems on the same items.
        """
        # Column by column in memory, as sparse products of the metrics read it.
        weights = np.ones((len(left) + len(at), len(masks))).T
        weights[:, at], weights[:, len(left) :] = 1 - masks, masks
        return self.weighted(np.concatenate([left, right[at]]), weights)

    def aggregate(self, statistics: Array) -> float:
        """The score of the whole test set."""
        return float(self.weighted(statistics, np.ones((1, len(statistics))))[0])

    def reason(self, statistics: Array) -> str | None:
        """None when the score is a number, else why it is not."""
        if not len(statistics):
            return "there are no items"
        broken = np.flatnonzero(~np.isfinite(statistics).all(axis=1))
        if len(broken):
            return (
                f"{len(broken)} of {len(statistics)} items have a value that is not finite (first at row {broken[0]})"
            )
        return self.why(statistics) if np.isnan(self.aggregate(statistics)) else None

    def score(self, records: Sequence[Record]) -> Score:
        """The score of these records, with its reason and per-item values."""
        statistics = self.statistics(records)
        return Score(self.aggregate(statistics), self.reason(statistics), self.items(statistics))


@dataclass(frozen=True, kw_only=True)
class Summed(Metric):
    """A metric whose score is a function of the summed statistics."""

    @abstractmethod
    def finish(self, sums: Array) -> Array:
        """(r, d) sums of statistics to (r,) scores; NaN where undefined."""

    def _weighted(self, statistics: Array, weights: Array) -> Array:
        return self.finish(weights @ statistics)

    def swapped(self, left: Array, right: Array, at: Places, masks: Array) -> Array:
        if not (np.isfinite(left).all() and np.isfinite(right[at]).all()):
            return np.full(len(masks), np.nan)
        with np.errstate(all="ignore"):
            return self.finish(left.sum(0) + masks @ (right[at] - left[at]))

    def items(self, statistics: Array) -> Array | None:
        # A row alone is a test set of one; a row that is not finite is that item's NaN, not everybody's.
        with np.errstate(all="ignore"):
            scores = self.finish(statistics)
        return np.where(np.isfinite(statistics).all(axis=1), scores, np.nan)


@dataclass(frozen=True, kw_only=True)
class Mean(Summed):
    """A mean over items of scores from 0 to 1, shown in percent. A row is (score, 1)."""

    def finish(self, sums: Array) -> Array:
        return 100 * sums[:, 0] / sums[:, 1]

    def why(self, statistics: Array) -> str:
        return "no item has any weight"


def rows(values: Sequence[Sequence[float]], width: int) -> Array:
    """(n, width) float64 array, also for no rows; infinities become NaN, so that no product of one warns."""
    array = np.array(values, dtype=np.float64).reshape(len(values), width)
    return np.where(np.isfinite(array), array, np.nan)


def scored(values: Sequence[float]) -> Array:
    """The (n, 2) statistics of a Mean from per-item scores between 0 and 1."""
    return rows([(value, 1.0) for value in values], 2)
