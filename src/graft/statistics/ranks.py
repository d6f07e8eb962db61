"""Contestants over many boards: average ranks, Friedman's test, Nemenyi's critical difference.

Demšar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, §3.2.2. Boards are the sample
here: nothing within a board (items, seeds) enters, so that few boards can show little.
"""

import math
from dataclasses import dataclass

import numpy as np

from graft.errors import BadInput
from graft.statistics.measure import Array


@dataclass(frozen=True)
class Ranks:
    """Average ranks, 1 the best, and which contestants they do not tell apart.

    friedman, friedman_p: Friedman's chi-square corrected for ties and its p-value; None for fewer than three
    contestants or two boards, or when all ranks are tied. critical_difference: average ranks that differ by at least
    this differ (Nemenyi). groups: the largest sets of two or more contestants, best first, whose average ranks all
    differ by less; all in one when Friedman's test shows no difference at all. boards: how many were ranked;
    missing: how many scores were missing and took the worst rank.
    """

    average: tuple[float, ...]
    friedman: float | None
    friedman_p: float | None
    critical_difference: float
    groups: list[tuple[int, ...]]
    boards: int
    missing: int


def rank(scores: Array, higher_is_better: bool = True, *, level: float = 0.95) -> Ranks:
    """Rank the contestants, columns of (boards, contestants) scores; tied scores share their mean rank.

    A missing score (NaN) is a contestant that failed on that board: it takes the worst rank, shared with others that
    failed, since leaving the board out would reward failing. A board on which all failed is left out. A contestant that
    a board was never meant for should not be among the columns. Raises BadInput for fewer than two contestants or no
    board.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise BadInput(f"ranks need a table of boards by at least two contestants, got the shape {table.shape}.")
    table = table[~np.isnan(table).all(axis=1)]
    boards, contestants = table.shape
    if not boards:
        raise BadInput("there is no board on which any contestant has a score.")
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    costs = np.where(np.isnan(table), np.inf, -table if higher_is_better else table)
    ranks = rankdata(costs, axis=1)
    average = ranks.mean(axis=0)
    chi_square = p = None
    if contestants > 2 and boards > 1 and np.ptp(ranks, axis=1).any():
        chi_square, p = (float(number) for number in friedmanchisquare(*ranks.T))
    # Nemenyi: the studentized range for infinitely many degrees of freedom, divided by √2 (Demšar's table 5a).
    q = float(studentized_range.ppf(level, contestants, np.inf)) / math.sqrt(2)
    critical = q * math.sqrt(contestants * (contestants + 1) / (6 * boards))
    alike = p is not None and p > 1 - level
    return Ranks(
        tuple(float(each) for each in average),
        chi_square,
        p,
        critical,
        _groups(average, math.inf if alike else critical),
        boards,
        int(np.isnan(table).sum()),
    )


def _groups(average: Array, critical: float) -> list[tuple[int, ...]]:
    """Maximal runs along the axis of ranks whose ends differ by less than the critical difference."""
    order = [int(at) for at in np.argsort(average, kind="stable")]
    groups: list[tuple[int, ...]] = []
    reached = 0
    for start, first in enumerate(order):
        end = start + sum(average[at] - average[first] < critical for at in order[start:])
        if end > max(reached, start + 1):
            groups.append(tuple(order[start:end]))
            reached = end
    return groups
