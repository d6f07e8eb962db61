"""How much of a score's uncertainty comes from its items and how much from its seeds, and what follows from that.

Runs (seeds) and items are crossed random effects: the score of a run on a test set is

    score = truth + seed + items + (items × seed)

(Searle, Casella and McCulloch 1992, "Variance Components", §4.2). The mean over S runs varies by V_items + V_seeds:

- V_seeds = between-run variance / S, where the items × seed term is already in the variance between runs. For a
  difference it is the sum of both systems', with Welch's (1947) degrees of freedom ν: a seed is not shared by systems;
- V_items = the bootstrap variance over items with the runs held fixed, less its items × seed part, the variance of
  single runs about their mean under the same resamples, / S. It has n − 1 degrees of freedom.

With 3 to 5 seeds V_seeds is a rough estimate, so normal quantiles would claim far too much. Two remedies, both checked
by simulation (100,000s of draws, S = 3 and 5, every share of seeds, one system and two):

- *Intervals* take Student's t with 1/df = r/ν + (1 − r)/(n − 1), r the share of V_seeds. Satterthwaite's (1946) r²
  gives 92.2 % coverage at worst where 95 is stated (S = 3, r = 0.9), this 94.2 to 96.6 %.
- *Tests* are read far in the tail by Holm's correction, and there every such df is too hopeful: at p = 0.0008, false
  alarms come up to 9 times (Satterthwaite's: 20) too often. So p solves difference² = t²(p, n − 1) V_items +
  t²(p, ν) V_seeds, each component at its own quantile (Graybill and Wang 1980; "MOVER", Zou and Donner 2008): false
  alarms come at most as often as stated, at any p; at 5 %, 2.5 to 5 %.

With 2 or 4 degrees of freedom hardly anything passes the correction for the 66 pairs of 12 contestants. From five
contestants on a test therefore borrows from all of them, as Smyth (2004, "limma") does for genes, but to one side only:
a variance below the contestants' mean goes half way up to it, none goes down, and ν counts twice. Of 12 contestants
with 3 seeds a difference of 5 standard deviations between seeds is then found 70 times in 100 instead of 10. With
standard deviations that are equal, spread by e^±0.5 or e^±1, 4 : 1 or one 5 times the others', false alarms stay below
5 % (full limma: up to 15 %). No variance in a test is below its items × seed part, which is known well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.statistics.measure import Array


@dataclass(frozen=True)
class Components:
    """Variances of a mean over runs, or of a difference of two, with their degrees of freedom."""

    items: float
    seeds: float
    fixed: float  # over items with the runs held fixed: what the bootstrap sees
    items_freedom: float
    seeds_freedom: float  # infinite where there is no variance between runs

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.items + self.seeds)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of an interval."""
        share = self.seeds / (self.items + self.seeds) if self.error else 0.0
        return 1 / (share / self.seeds_freedom + (1 - share) / self.items_freedom)

    def reach(self, half: float, level: float) -> float:
        """The half-width over items and seeds; half: that over items with runs fixed, as the bootstrap has it.

        It keeps the shape that the bootstrap found (skewness, Wilson's room above zero), scaled to V_items.
        """
        if not self.seeds:
            return half
        own = half * math.sqrt(self.items / self.fixed) if self.fixed else half
        return _t((1 - level) / 2, self.freedom) * math.hypot(
            own / _t((1 - level) / 2, self.items_freedom), math.sqrt(self.seeds)
        )

    def critical(self, p: float) -> float:
        """The difference whose two-sided p-value is p."""
        return math.hypot(
            _t(p / 2, self.items_freedom) * math.sqrt(self.items), _t(p / 2, self.seeds_freedom) * math.sqrt(self.seeds)
        )

    def p(self, difference: float) -> float:
        """The two-sided p-value of a difference: where `critical` equals it."""
        if not self.error:
            return 0.0 if difference else 1.0
        low, high = -60.0, 0.0  # of the logarithm
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (low, middle) if self.critical(math.exp(middle)) < abs(difference) else (middle, high)
        return math.exp(high)

    def smallest(self, level: float, power: float = 0.8) -> float:
        """The smallest true difference that the test shows with this power; NaN where nothing varies."""
        return self.critical(1 - level) + _t(1 - power, self.freedom) * self.error if self.error else math.nan


def components(
    sides: Sequence[tuple[Array, Array]], items: int, *, cautious: bool = False, shared: float | None = None
) -> Components:
    """The components of one system's mean over runs, or of the difference of two systems.

    sides: for each system the scores of its runs (S,) and their bootstrap draws (resamples, S), drawn with the same
    weights for all. Draws that are not finite are left out. A system of one run, or of equal ones, has no variance
    between runs. cautious: as for tests; shared: the mean variance between runs of the contestants to borrow from.
    """
    finite = np.all([np.isfinite(draws).all(axis=1) for _, draws in sides], axis=0)
    drawn = [draws[finite] for _, draws in sides]
    means = [draws.mean(axis=1) for draws in drawn]
    expand = items / (items - 1)
    fixed = expand * float(np.var(means[-1] - means[0] if len(means) > 1 else means[0]))
    crossed = seeds = spread = 0.0
    for (scores, _), draws, mean in zip(sides, drawn, means, strict=True):
        count = len(scores)
        if not seeded(draws):
            continue
        single = expand * float((draws - mean[:, None]).var(axis=0).sum()) / (count - 1)
        between, freedom = float(scores.var(ddof=1)), count - 1
        if cautious and shared is not None:
            between, freedom = max(between, (between + shared) / 2), 2 * freedom
        if cautious:
            between = max(between, single)
        crossed += single / count
        seeds += between / count
        spread += (between / count) ** 2 / freedom
    return Components(max(0.0, fixed - crossed), seeds, fixed, items - 1, seeds**2 / spread if spread else math.inf)


def seeded(draws: Array) -> bool:
    """Whether the runs behind these (resamples, S) draws differ."""
    return bool((draws != draws[:, :1]).any())


def _t(tail: float, freedom: float) -> float:
    """The value that Student's t exceeds with probability `tail`."""
    from scipy.special import ndtri, stdtrit

    return float(-ndtri(tail)) if math.isinf(freedom) else float(-stdtrit(freedom, tail))
