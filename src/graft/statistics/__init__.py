"""Is the difference real: intervals, paired tests, items that flipped, and the sentence that says so.

    comparison = statistics.compare(metrics.get("accuracy"), base_records, adapted_records)
    print(comparison.verdict)    # better by 6.2 (4.1 to 8.3), p = 0.0005
    statistics.pairs(metrics.get("f1"), {"lora": runs, "full": other_runs})    # several seeds each, Holm's correction
    statistics.rank(scores_by_board)                                           # Friedman, Nemenyi

Everything works on per-item statistics of a metric (`graft.metrics`), so that scores which are not means of item scores
are resampled and permuted as exactly as those which are. All randomness comes from an explicit seed.
"""

from graft.statistics.bootstrap import Interval, interval, paired_bootstrap, smallest_difference
from graft.statistics.comparison import Comparison, Flips, compare, flips
from graft.statistics.measure import Measure
from graft.statistics.pairing import paired
from graft.statistics.permutation import holm, paired_permutation
from graft.statistics.ranks import Ranks, rank
from graft.statistics.seeds import compare_runs, interval_runs, pairs

__all__ = [
    "Comparison",
    "Flips",
    "Interval",
    "Measure",
    "Ranks",
    "compare",
    "compare_runs",
    "flips",
    "holm",
    "interval",
    "interval_runs",
    "paired",
    "paired_bootstrap",
    "paired_permutation",
    "pairs",
    "rank",
    "smallest_difference",
]
