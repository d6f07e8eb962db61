"""Intervals and tests: against scipy, against enumeration, and by simulation with a known truth."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graft import metrics, statistics
from graft.errors import BadInput

ACCURACY, LOSS, F1 = metrics.get("accuracy"), metrics.get("loss"), metrics.get("f1")


def losses(values: np.ndarray) -> np.ndarray:
    """Statistics of `loss` whose score is the mean of the values."""
    return np.stack([values, np.ones_like(values)], axis=1)


def labels(draw: np.random.Generator, items: int, right: tuple[float, float], classes: int = 3) -> list[list[dict]]:
    """Records of two classifiers that are right with these chances, and correlated."""
    references, shared = draw.integers(0, classes, items), draw.random(items)
    systems = []
    for chance in right:
        luck = np.where(draw.random(items) < 0.5, shared, draw.random(items))
        outputs = np.where(luck < chance, references, (references + draw.integers(1, classes, items)) % classes)
        rows = enumerate(zip(outputs, references, strict=True))
        systems.append([{"item": i, "output": int(o), "reference": int(r)} for i, (o, r) in rows])
    return systems


# --- intervals -------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_scipys_at_the_expanded_level() -> None:
    draw = np.random.default_rng(0)
    base, other = draw.normal(3, 1, 40), draw.normal(3.4, 1, 40)
    got = statistics.paired_bootstrap(LOSS, losses(base), losses(other), resamples=20_000)
    level = 1 - 2 * stats.norm.cdf(math.sqrt(40 / 39) * stats.t.ppf(0.025, 39))
    wanted = stats.bootstrap(
        (other - base,), np.mean, confidence_level=level, n_resamples=20_000, method="bca", rng=np.random.default_rng(1)
    )
    assert got.value == pytest.approx((other - base).mean())
    assert [got.low, got.high] == pytest.approx(wanted.confidence_interval, abs=0.03)
    assert got.error == pytest.approx((other - base).std(ddof=1) / math.sqrt(40), rel=0.02)


def test_a_proportion_has_wilsons_interval_also_when_all_are_right() -> None:
    right = [{"item": i, "output": 1, "reference": 1} for i in range(20)]
    got = statistics.interval(ACCURACY, ACCURACY.statistics(right))
    assert (got.value, got.high) == (100, 100)
    assert got.low == pytest.approx(100 / (1 + stats.norm.ppf(0.975) ** 2 / 20))


def coverage(metric_name: str, items: int, experiments: int, classes: int) -> float:
    """How often the interval of the difference holds the difference on a very large test set."""
    metric, draw = metrics.get(metric_name), np.random.default_rng(7)
    truth = np.subtract(*[metric.score(system).value for system in labels(draw, 60_000, (0.75, 0.6), classes)])
    hits = 0
    for seed in range(experiments):
        base, other = (metric.statistics(system) for system in labels(draw, items, (0.6, 0.75), classes))
        got = statistics.paired_bootstrap(metric, base, other, resamples=600, seed=seed)
        hits += got.low <= truth <= got.high
    return hits / experiments


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_intervals_cover_the_truth(name: str) -> None:
    # 200 experiments at 95 %: within 0.90 and 0.99 in more than 99 of 100 runs
    assert 0.90 <= coverage(name, items=80, experiments=200, classes=3) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes"), [("accuracy", 3), ("f1", 3), ("f1", 20), ("matthews", 3)])
def test_intervals_cover_the_truth_closely(name: str, classes: int) -> None:
    assert 0.93 <= coverage(name, items=150, experiments=2000, classes=classes) <= 0.97


def test_macro_f1_over_many_classes_is_covered_although_resamples_are_biased() -> None:
    draw = np.random.default_rng(3)
    truth = F1.score(labels(draw, 100_000, (0.7, 0.7), classes=50)[0]).value
    hits = 0
    for seed in range(100):
        statistics_of = F1.statistics(labels(draw, 200, (0.7, 0.7), classes=50)[0])
        got = statistics.interval(F1, statistics_of, resamples=400, seed=seed)
        hits += got.low <= truth <= got.high
    assert hits >= 82  # plain quantiles: about 63


def test_one_item_and_too_few_of_a_kind_have_no_interval() -> None:
    one = statistics.paired_bootstrap(LOSS, losses(np.array([1.0])), losses(np.array([2.0])))
    assert one.value == 1 and math.isnan(one.low) and one.reason == "one item has no interval"
    rare = [{"item": i, "output": i % 2, "reference": int(i == 0)} for i in range(10)]
    matthews = metrics.get("matthews")
    got = statistics.interval(matthews, matthews.statistics(rare))
    assert math.isfinite(got.value) and math.isnan(got.high) and "undefined in 3" in (got.reason or "")


def test_statistics_of_other_items_are_refused() -> None:
    with pytest.raises(BadInput, match=r"\(3, 2\) against \(4, 2\)"):
        statistics.paired_bootstrap(LOSS, losses(np.ones(3)), losses(np.ones(4)))
    with pytest.raises(BadInput, match="at least 100 resamples, got 5"):
        statistics.paired_bootstrap(LOSS, losses(np.ones(3)), losses(np.ones(3)), resamples=5)


# --- the permutation test --------------------------------------------------------------------------------------------


def test_exact_on_few_items_as_scipy_enumerates_them() -> None:
    draw = np.random.default_rng(0)
    base, other = draw.normal(size=9), draw.normal(0.7, 1, size=9)
    wanted = stats.permutation_test(
        (base, other),
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert statistics.paired_permutation(LOSS, losses(base), losses(other)) == pytest.approx(wanted.pvalue)


def test_exact_for_a_score_that_is_no_mean() -> None:
    base, other = (F1.statistics(system) for system in labels(np.random.default_rng(1), 7, (0.4, 0.8)))
    differences = []
    for swap in range(2**7):
        chosen = np.array([swap >> i & 1 for i in range(7)], dtype=bool)[:, None]
        differences.append(F1.aggregate(np.where(chosen, base, other)) - F1.aggregate(np.where(chosen, other, base)))
    wanted = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-9)
    assert statistics.paired_permutation(F1, base, other) == pytest.approx(wanted)


def test_exact_for_right_and_wrong_is_the_sign_test() -> None:
    base = np.array([0.0] * 11 + [1.0] * 30)
    other = np.array([1.0] * 9 + [0.0] * 2 + [0.0] * 2 + [1.0] * 28)
    got = statistics.paired_permutation(ACCURACY, losses(base), losses(other))
    assert got == pytest.approx(stats.binomtest(9, 11).pvalue)


def test_many_items_are_sampled_near_the_exact_value() -> None:
    draw = np.random.default_rng(2)
    base = draw.normal(size=60)
    other = base + draw.normal(0.2, 1, size=60)
    got = statistics.paired_permutation(LOSS, losses(base), losses(other), resamples=20_000)
    assert got == pytest.approx(stats.ttest_rel(base, other).pvalue, abs=0.02)
    assert statistics.paired_permutation(LOSS, losses(base), losses(base + 5), resamples=999) == 1 / 1000


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_p_values_are_uniform_when_nothing_differs(name: str) -> None:
    metric, draw, found = metrics.get(name), np.random.default_rng(4), []
    for seed in range(300):
        base, other = (metric.statistics(system) for system in labels(draw, 50, (0.6, 0.6)))
        found.append(statistics.paired_permutation(metric, base, other, resamples=300, seed=seed))
    for level in (0.05, 0.2, 0.5):
        # never more often than stated (binomial, three standard errors), and, ties aside, not far less
        share, slack = np.mean(np.array(found) <= level), 3 * math.sqrt(level * (1 - level) / 300)
        assert level - slack - 0.12 * (name == "accuracy") <= share <= level + slack


# --- many tests, and how much could have been shown ------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = statistics.holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[i] * (len(p_values) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


def test_holm_leaves_out_what_has_no_p_value() -> None:
    adjusted = statistics.holm([0.04, math.nan, 0.01])
    assert adjusted[0] == 0.04 and math.isnan(adjusted[1]) and adjusted[2] == 0.02
    with pytest.raises(BadInput, match=r"got 1\.2 at position 0"):
        statistics.holm([1.2])


def test_a_true_difference_of_the_smallest_size_is_found_with_its_power() -> None:
    draw, items, deviation, found = np.random.default_rng(5), 60, 2.0, 0
    size = statistics.smallest_difference(items, deviation)
    for seed in range(300):
        base = draw.normal(10, 3, items)
        other = base + draw.normal(size, deviation, items)
        found += statistics.paired_permutation(LOSS, losses(base), losses(other), resamples=300, seed=seed) <= 0.05
    assert 0.72 <= found / 300 <= 0.88


def test_the_smallest_difference_in_numbers() -> None:
    # (1.96 + 0.84) · 40 / √10000
    assert statistics.smallest_difference(10_000, 40) == pytest.approx(1.1207, abs=1e-3)
    assert math.isnan(statistics.smallest_difference(1, 40)) and math.isnan(statistics.smallest_difference(100, 0))
    with pytest.raises(BadInput, match="power and level"):
        statistics.smallest_difference(10, 1, power=80)


def test_two_thousand_resamples_of_two_thousand_items_take_under_two_seconds() -> None:
    base, other = (F1.statistics(system) for system in labels(np.random.default_rng(6), 2000, (0.6, 0.65), classes=20))
    start = time.process_time()
    statistics.paired_bootstrap(F1, base, other, resamples=2000)
    assert time.process_time() - start < 2


# --- properties that hold for any data -------------------------------------------------------------------------------

OUTPUTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=25)


@settings(max_examples=25, deadline=None)
@given(OUTPUTS, st.sampled_from(["accuracy", "f1", "matthews"]), st.randoms(use_true_random=False))
def test_order_sides_and_equality(rows: list[tuple[int, int, int]], name: str, shuffler) -> None:  # type: ignore[no-untyped-def]
    metric = metrics.get(name)
    base = [{"item": i, "output": row[0], "reference": row[2]} for i, row in enumerate(rows)]
    other = [{"item": i, "output": row[1], "reference": row[2]} for i, row in enumerate(rows)]
    here = statistics.compare(metric, base, other, resamples=200)
    mixed = [shuffler.sample(records, len(records)) for records in (base, other)]
    assert repr(statistics.compare(metric, *mixed, resamples=200)) == repr(here)
    back = statistics.compare(metric, other, base, resamples=200)
    assert [back.p, -back.difference.value] == pytest.approx([here.p, here.difference.value], nan_ok=True)
    assert [-back.difference.high, -back.difference.low] == pytest.approx(
        [here.difference.low, here.difference.high], abs=1e-9, nan_ok=True
    )
    same = statistics.compare(metric, base, base, resamples=200)
    if same.difference.reason is None:
        assert (same.difference.value, same.difference.low, same.difference.high, same.p) == (0, 0, 0, 1)
        assert same.outcome == "same" and same.flips is not None and same.flips.unchanged == len(rows)
