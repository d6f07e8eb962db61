"""What the statistics need of a metric; every `graft.metrics` metric has it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graft.errors import BadInput

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
Record = Mapping[str, Any]


class Measure(Protocol):
    """A score of any weighting of items; see `graft.metrics._metric` for the whole of it."""

    @property
    def name(self) -> str:
        """The name in tables and files."""
        ...

    @property
    def unit(self) -> str:
        """What scores are in; "%" is 0 to 100."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which all scores are."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Which way is better."""
        ...

    @property
    def proportion(self) -> bool:
        """Whether the score is a share of items that are right."""
        ...

    @property
    def tolerance(self) -> float:
        """An item has changed when its score moves by more than this."""
        ...

    def statistics(self, records: Sequence[Record]) -> Array:
        """(n, d) numbers per item."""
        ...

    def items(self, statistics: Array) -> Array | None:
        """(n,) score of each item alone, or None."""
        ...

    def weighted(self, statistics: Array, weights: Array) -> Array:
        """(r,) scores of (r, n) weightings of the items."""
        ...

    def swapped(self, left: Array, right: Array, at: Places, masks: Array) -> Array:
        """(r,) scores of `left` with items of `right` in it, of those `at` some places, by (r, places) masks."""
        ...

    def aggregate(self, statistics: Array) -> float:
        """The score of all items."""
        ...

    def reason(self, statistics: Array) -> str | None:
        """Why the score is NaN, or None."""
        ...


def same_shape(base: Array, other: Array) -> None:
    """Raise BadInput unless the two systems have statistics of the same items."""
    if base.shape != other.shape:
        raise BadInput(
            f"paired statistics need the same items for both systems: {base.shape} against {other.shape} "
            "(items, statistics per item). Use statistics.paired(base_records, other_records) to line them up."
        )
