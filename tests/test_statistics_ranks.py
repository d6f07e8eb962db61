"""Ranks over boards: against the worked example of the paper, and what must hold for any scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graft import statistics
from graft.errors import BadInput

# Demšar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets. On "voting" the last two are printed as
# 0.975 but ranked 2 and 3: the fourth decimal stands for what rounding hid.
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_the_worked_example_of_demsar() -> None:
    got = statistics.rank(AUC)
    assert got.average == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    # The paper's chi-square is not corrected for ties: 12 N / (k (k + 1)) · (Σ R² − k (k + 1)² / 4).
    plain = 12 * 14 / 20 * (sum(each**2 for each in got.average) - 25)
    assert plain == pytest.approx(9.28, abs=5e-3)
    ties = [np.unique(row, return_counts=True)[1] for row in AUC]
    corrected = plain / (1 - sum(int((t**3 - t).sum()) for t in ties) / (14 * (64 - 4)))
    assert got.friedman == pytest.approx(corrected)
    assert got.friedman_p == pytest.approx(stats.chi2.sf(corrected, 3))
    assert got.critical_difference == pytest.approx(1.25, abs=5e-3)
    # At 5 % Nemenyi's test finds nothing (3.143 − 1.964 < 1.25): all in one group.
    assert got.groups == [(3, 1, 2, 0)]
    assert (got.boards, got.missing) == (14, 0)


def test_the_critical_difference_at_ten_percent_is_the_papers() -> None:
    got = statistics.rank(AUC, level=0.90)
    assert got.critical_difference == pytest.approx(1.12, abs=5e-3)
    # The paper: C4.5 is worse than the two with m; nothing is said of C4.5+cf.
    assert got.groups == [(3, 1, 2), (2, 0)]


def test_a_lower_score_can_be_better() -> None:
    assert statistics.rank(1 - AUC, higher_is_better=False).average == pytest.approx(statistics.rank(AUC).average)


def test_a_missing_score_is_the_worst_and_an_empty_board_is_left_out() -> None:
    nan = math.nan
    got = statistics.rank(np.array([[3.0, nan, 1.0, nan], [nan] * 4, [1.0, 2.0, 3.0, 4.0]]))
    assert got.average == ((1 + 4) / 2, (3.5 + 3) / 2, (2 + 2) / 2, (3.5 + 1) / 2)
    assert (got.boards, got.missing) == (2, 2)


def test_what_has_no_test_has_none_and_still_has_ranks() -> None:
    one = statistics.rank(np.array([[3.0, 2.0, 1.0]]))
    assert (one.average, one.friedman_p, one.groups) == ((1, 2, 3), None, [(0, 1, 2)])
    two = statistics.rank(np.array([[3.0, 2.0]] * 20))
    assert two.friedman_p is None and two.groups == []
    tied = statistics.rank(np.ones((5, 3)))
    assert (tied.average, tied.friedman_p, tied.groups) == ((2, 2, 2), None, [(0, 1, 2)])
    with pytest.raises(BadInput, match=r"shape \(3, 1\)"):
        statistics.rank(np.ones((3, 1)))
    with pytest.raises(BadInput, match="no board"):
        statistics.rank(np.full((3, 2), math.nan))


def test_without_a_difference_at_all_nobody_is_told_apart() -> None:
    # Ranks far enough apart for Nemenyi alone; Friedman's test over all says that it is chance.
    found = [statistics.rank(np.random.default_rng(seed).normal(size=(4, 6))) for seed in range(40)]
    unsure = [each for each in found if each.friedman_p is not None and each.friedman_p > 0.05]
    assert len(unsure) > 30 and all(len(each.groups) == 1 and len(each.groups[0]) == 6 for each in unsure)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(2, 12), st.integers(0, 10**6))
def test_groups_are_the_largest_and_the_order_of_contestants_changes_nothing(k: int, boards: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(boards, k)) + np.arange(k) * draw.choice([0, 1, 3])
    got, order = statistics.rank(scores), draw.permutation(k)
    moved = statistics.rank(scores[:, order])
    assert moved.average == tuple(got.average[at] for at in order)
    assert {frozenset(int(order[at]) for at in group) for group in moved.groups} == {frozenset(g) for g in got.groups}
    if got.friedman_p is None or got.friedman_p <= 0.05:
        together = {frozenset((a, b)) for g in got.groups for a in g for b in g if a < b or b < a}
        near = {
            frozenset((a, b)) for a in range(k) for b in range(a)
            if abs(got.average[a] - got.average[b]) < got.critical_difference
        }  # fmt: skip
        assert together == near
    assert not any(set(a) < set(b) for a in got.groups for b in got.groups)
