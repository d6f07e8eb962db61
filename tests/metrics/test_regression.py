"""Against scipy, on whole test sets and on resamples with their ties."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from graft import metrics

VALUES = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=25)
SCIPY = {"pearson": pearsonr, "spearman": spearmanr}


def made(pairs) -> list[dict]:  # type: ignore[no-untyped-def]
    return [{"item": i, "output": output, "reference": reference} for i, (output, reference) in enumerate(pairs)]


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@settings(max_examples=50, deadline=None)
@given(pairs=VALUES, shift=st.sampled_from([0.0, 1e6]), scale=st.sampled_from([1.0, 1e-3, 1e4]))
def test_equal_to_scipy(name: str, pairs: list[tuple[int, int]], shift: float, scale: float) -> None:
    x, y = np.array(pairs, dtype=float).T
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    got = metrics.get(name).score(made(zip(shift + scale * x, y, strict=True))).value
    assert got == pytest.approx(100 * SCIPY[name](x, y).statistic, abs=1e-5)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_resamples_equal_scipy(name: str) -> None:
    draw = np.random.default_rng(0)
    y = draw.normal(size=30).round(1)
    x = (y + draw.normal(size=30)).round(1)
    chosen = draw.integers(0, 30, (40, 30))
    metric = metrics.get(name)
    weights = np.stack([np.bincount(row, minlength=30) for row in chosen]).astype(float)
    got = metric.weighted(metric.statistics(made(zip(x, y, strict=True))), weights)
    assert got == pytest.approx([100 * SCIPY[name](x[row], y[row]).statistic for row in chosen])


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_constants_are_undefined(name: str, constant: float) -> None:
    score = metrics.get(name).score(made([(constant, 1), (constant, 2), (constant, 4)]))
    assert np.isnan(score.value) and score.reason == "every output is the same"
    score = metrics.get(name).score(made([(1, constant), (2, constant)]))
    assert np.isnan(score.value) and score.reason == "every reference is the same"
    score = metrics.get(name).score(made([(1, 2)]))
    assert np.isnan(score.value) and score.reason == "a correlation needs more than one item"
