"""Is the difference real: intervals, paired tests, items that flipped, and the sentence that says so.

    comparison = statistics.compare(metrics.get("accuracy"), base_records, adapted_records)
    print(comparison.verdict)    # better by 6.2 (4.1 to 8.3), p = 0.0005

Everything works on per-item statistics of a metric (`graft.metrics`), so that scores which are not means of item scores
are resampled and permuted as exactly as those which are. All randomness comes from an explicit seed.
"""

from graft.statistics.bootstrap import Interval, interval, paired_bootstrap, smallest_difference
from graft.statistics.comparison import Comparison, Flips, compare, flips, paired
from graft.statistics.measure import Measure
from graft.statistics.permutation import holm, paired_permutation

__all__ = [
    "Comparison",
    "Flips",
    "Interval",
    "Measure",
    "compare",
    "flips",
    "holm",
    "interval",
    "paired",
    "paired_bootstrap",
    "paired_permutation",
    "smallest_difference",
]
