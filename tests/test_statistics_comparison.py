"""Two systems on the same items: pairing, flips, and words that follow the numbers."""

import json
import math

import numpy as np
import pytest

from graft import metrics, statistics
from graft.errors import BadInput

ACCURACY, LOSS = metrics.get("accuracy"), metrics.get("loss")


def answered(right: list[bool]) -> list[dict]:
    return [{"item": f"q{i}", "output": "yes" if hit else "no", "reference": "yes"} for i, hit in enumerate(right)]


def predicted(values: list[float]) -> list[dict]:
    return [{"item": i, "loss": value, "tokens": 1} for i, value in enumerate(values)]


def test_better_and_worse_with_their_numbers() -> None:
    base, other = answered([i % 2 == 0 for i in range(100)]), answered([i % 5 != 1 for i in range(100)])
    got = statistics.compare(ACCURACY, base, other)
    assert (got.base.value, got.other.value, got.difference.value, got.outcome) == (50, 80, 30, "better")
    low, high = got.difference.low, got.difference.high
    assert got.verdict == f"better by 30.0 ({low:.1f} to {high:.1f}), p = 0.0005"
    back = statistics.compare(ACCURACY, other, base)
    assert back.outcome == "worse" and back.verdict == got.verdict.replace("better", "worse")


def test_a_lower_loss_is_better() -> None:
    draw = np.random.default_rng(0)
    base = draw.normal(3, 0.5, 80)
    got = statistics.compare(LOSS, predicted(base.tolist()), predicted((base - draw.normal(0.4, 0.2, 80)).tolist()))
    assert got.outcome == "better" and got.difference.value < 0
    assert got.verdict.startswith("better by 0.") and "−" not in got.verdict


def test_no_difference_shown_says_what_could_have_been() -> None:
    base = answered([i % 3 > 0 for i in range(90)])
    other = answered([i % 3 > 0 if i > 10 else i % 3 == 0 for i in range(90)])
    got = statistics.compare(ACCURACY, base, other)
    low, high = f"{got.difference.low:.1f}".replace("-", "−"), f"{got.difference.high:.1f}"
    assert got.outcome == "no difference shown" and got.difference.value == pytest.approx(-100 * 3 / 90)
    assert (
        got.verdict == f"no difference shown (Δ = −3.3, interval {low} to {high}; 90 items can show {got.smallest:.1f})"
    )


def test_equal_scores_are_said_to_be_equal() -> None:
    got = statistics.compare(ACCURACY, answered([True, False]), answered([True, False]))
    assert (got.p, got.outcome, got.verdict) == (1, "same", "no difference: the scores are equal on all 2 items")


def test_what_is_undefined_says_why() -> None:
    matthews = metrics.get("matthews")
    got = statistics.compare(matthews, answered([True, False]), answered([True, True]))
    assert got.outcome == "undefined" and math.isnan(got.p)
    assert got.verdict == (
        "no comparison: base: every reference is the same label; other: every reference is the same label"
    )
    one = statistics.compare(ACCURACY, answered([True]), answered([False]))
    assert one.verdict == "no comparison: one item has no interval"
    json.loads(json.dumps(got.as_json(), allow_nan=False))


def test_words_need_both_the_interval_and_the_test() -> None:
    # Three flips of three: the interval excludes zero, but the exact test cannot go below 2 / 2³.
    got = statistics.compare(ACCURACY, answered([False] * 3 + [True]), answered([True] * 4))
    assert got.p == 0.25 and got.outcome == "no difference shown"
    sure = statistics.compare(ACCURACY, answered([False] * 50 + [True] * 50), answered([True] * 100))
    assert sure.outcome == "better" and sure.adjusted(0.06).outcome == "no difference shown"


def test_small_numbers_never_read_as_zero() -> None:
    draw = np.random.default_rng(1)
    base = draw.normal(3, 0.1, 50)
    got = statistics.compare(LOSS, predicted(base.tolist()), predicted((base - 2e-5 - 1e-6 * draw.random(50)).tolist()))
    assert got.outcome == "better" and "by 0.00002" in got.verdict and "(0.00002" in got.verdict


def test_flips_both_ways_by_item() -> None:
    base, other = answered([True, True, False, False]), answered([True, False, True, False])
    got = statistics.flips(base, other, ACCURACY)
    assert got is not None
    assert (got.improved, got.worsened, got.unchanged, got.unscored) == (["q2"], ["q1"], 2, 0)


def test_graded_flips_need_more_than_the_tolerance() -> None:
    base, other = predicted([1.0, 1.0, 1.0, math.nan]), predicted([0.5, 1.005, 1.5, 1.0])
    got = statistics.flips(base, other, LOSS)
    assert got is not None and got.tolerance == 0.01
    assert (got.improved, got.worsened, got.unchanged, got.unscored) == ([0], [2], 1, 1)
    wide = statistics.flips(base, other, LOSS, tolerance=1.0)
    assert wide is not None and (wide.improved, wide.worsened) == ([], [])


def test_a_metric_without_item_scores_has_no_flips() -> None:
    records = [{"item": i, "output": i, "reference": i % 3} for i in range(5)]
    assert statistics.flips(records, records, metrics.get("pearson")) is None


def test_two_test_sets_are_not_compared() -> None:
    base = answered([True] * 4)
    with pytest.raises(BadInput, match=r"2 items only in base: q2, q3.*Score both on the same items"):
        statistics.compare(ACCURACY, base, answered([True] * 2))
    with pytest.raises(BadInput, match="1 items have another reference: q1"):
        statistics.compare(ACCURACY, base, [base[0], base[1] | {"reference": "no"}, *base[2:]])
    with pytest.raises(BadInput, match="base has items more than once: q0"):
        statistics.compare(ACCURACY, [*base, base[0]], base)
    with pytest.raises(BadInput, match="1 of 1 other records have no 'item'"):
        statistics.paired(base, [{"output": "yes"}])


def test_references_that_come_back_as_arrays_are_the_same() -> None:
    base = [{"item": 0, "output": "a", "reference": ["a", "b"]}]
    other = [{"item": 0, "output": "b", "reference": np.array(["a", "b"])}]
    assert statistics.compare(metrics.get("exact_match"), base, other).base.value == 100


def test_json_holds_every_field_and_the_words() -> None:
    got = statistics.compare(ACCURACY, answered([True, False] * 20), answered([True] * 40))
    data = json.loads(json.dumps(got.as_json(), allow_nan=False))
    assert data["difference"]["value"] == 50 and data["verdict"] == got.verdict and data["outcome"] == "better"
    assert data["flips"]["improved"][:2] == ["q1", "q11"] and data["seed"] == 0 and data["items"] == 40
