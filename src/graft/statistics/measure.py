"""What the statistics need of a metric; every `graft.metrics` metric has it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graft.errors import BadInput

Array = npt.NDArray[np.float64]
Record = Mapping[str, Any]


class Measure(Protocol):
    """A score of any weighting of items; see `graft.metrics._metric` for what each member means."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...
    @property
    def proportion(self) -> bool: ...
    @property
    def tolerance(self) -> float: ...
    def statistics(self, records: Sequence[Record]) -> Array: ...
    def items(self, statistics: Array) -> Array | None: ...
    def weighted(self, statistics: Array, weights: Array) -> Array: ...
    def aggregate(self, statistics: Array) -> float: ...
    def reason(self, statistics: Array) -> str | None: ...


def same_shape(base: Array, other: Array) -> None:
    """Raise BadInput unless the two systems have statistics of the same items."""
    if base.shape != other.shape:
        raise BadInput(
            f"paired statistics need the same items for both systems: {base.shape} against {other.shape} "
            "(items, statistics per item). Use statistics.paired(base_records, other_records) to line them up."
        )
