"""What holds for every metric, whatever it measures."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft import metrics
from graft.errors import BadInput
from graft.statistics import interval_runs

EVERY = [*metrics.names(), "f1:yes"]
WORDS = ["a", "list", "of", "the", "keys", "and", "values", "in", "this", "file", "returns", "no", "such", "thing"]


def records(name: str, count: int, seed: int) -> list[dict]:
    """Random records that the metric called `name` can score."""
    draw = np.random.default_rng(seed)
    family = metrics.get(name).family
    made = []
    for item in range(count):
        record: dict = {"item": item, "input": ""}
        if family == "classification":
            sure = float(draw.uniform(0.5, 1))
            kinds = ["yes", "no", "maybe"]
            record |= {
                "output": str(draw.choice(kinds)),
                "reference": str(draw.choice(kinds)),
                "probabilities": [sure, 1 - sure],
            }
        elif family == "regression":
            record |= {"output": round(float(draw.normal()), 1), "reference": round(float(draw.normal()), 1)}
        elif family == "tagging":
            kinds = ["O", "B-X", "I-X", "S-Y", "E-Y"]
            length = int(draw.integers(1, 8))
            record |= {side: [str(tag) for tag in draw.choice(kinds, length)] for side in ("output", "reference")}
        elif family == "language":
            record |= {
                "loss": float(draw.gamma(5, 10)),
                "tokens": int(draw.integers(1, 30)),
                "bytes": int(draw.integers(30, 90)),
            }
        else:
            sentences = [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(3)]
            record |= {"output": sentences[0], "reference": sentences[1:] if item % 2 else sentences[1]}
        made.append(record)
    return made


def test_families_and_the_package_need_nothing_heavy() -> None:
    code = (
        "import sys; from graft import metrics; assert 'regression' in metrics.families()\n"
        "print([m for m in ('numpy', 'torch', 'sklearn', 'scipy', 'sacrebleu') if m in sys.modules])\n"
        "assert 'bleu' in metrics.names()\n"
        "print([m for m in ('torch', 'sklearn', 'sacrebleu', 'rouge_score', 'nltk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_families_are_the_files_and_names_are_theirs() -> None:
    assert metrics.families() == ["answers", "classification", "language", "overlap", "regression", "tagging"]
    assert metrics.names("regression") == ["pearson", "spearman"]
    assert {metrics.get(name).family for name in metrics.names()} == set(metrics.families())


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"acuracy.*Did you mean accuracy"):
        metrics.get("acuracy")
    with pytest.raises(BadInput, match=r"rouge1:x\. Write 'rouge1'"):
        metrics.get("rouge1:x")


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_weight_of_two_is_the_item_twice(name: str, data: st.DataObject) -> None:
    metric = metrics.get(name)
    statistics = metric.statistics(records(name, 12, seed=data.draw(st.integers(0, 5))))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(any))
    several = metric.weighted(statistics, np.array([weights, [1] * 12], dtype=float))
    assert several == pytest.approx(
        [metric.aggregate(np.repeat(statistics, weights, axis=0)), metric.aggregate(statistics)], rel=1e-9, nan_ok=True
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_row_depends_on_its_record_alone(name: str) -> None:
    metric, made = metrics.get(name), records(name, 15, seed=1)
    apart = np.concatenate([metric.statistics(made[10:]), metric.statistics(made[:10])])
    assert np.array_equal(np.roll(metric.statistics(made), 5, axis=0), apart)
    assert metric.aggregate(apart) == pytest.approx(metric.score(made).value, rel=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_one_score_per_item_or_none(name: str) -> None:
    metric, made = metrics.get(name), records(name, 9, seed=2)
    items = metric.score(made).items
    assert (items is None) == (name in ("pearson", "spearman", "calibration_error"))
    if items is not None:
        assert items.shape == (9,)
        assert not metric.right_or_wrong or set(items) <= {0.0, 100.0}
        assert not metric.proportion or items.mean() == pytest.approx(metric.score(made).value)


def _right(record: dict) -> Any:
    wanted = record["reference"]
    return wanted if type(wanted) is type(record["output"]) else wanted[0]


@pytest.mark.parametrize("name", EVERY)
def test_scores_lie_between_the_bounds_and_so_do_intervals_over_seeds(name: str) -> None:
    metric = metrics.get(name)
    (low, high), first = metric.bounds, records(name, 20, seed=1)
    second = records(name, 20, seed=2)
    if "reference" in first[0]:  # half of the items are right
        second = [record | {"output": _right(record)} if record["item"] % 2 else record for record in first]
    runs = [first, second]
    assert all(low <= metric.score(run).value <= high for run in runs)
    found = interval_runs(metric, runs, resamples=200)
    assert low <= found.low <= found.value <= found.high <= high


@pytest.mark.parametrize("name", EVERY)
def test_no_items_have_no_score_and_a_reason(name: str) -> None:
    score = metrics.get(name).score([])
    assert np.isnan(score.value) and score.reason == "there are no items"
    assert score.items is None or len(score.items) == 0


@pytest.mark.parametrize("name", EVERY)
def test_every_unusable_record_is_named(name: str) -> None:
    with pytest.raises(BadInput, match=r"item 3: no '.*item 4: no '.*\(and 2 more\)"):
        metrics.get(name).score([*records(name, 3, seed=0), *({"item": item} for item in range(3, 10))])


@pytest.mark.parametrize(
    ("name", "key", "broken"),
    [
        ("pearson", "output", float("nan")),
        ("spearman", "output", float("-inf")),
        ("perplexity", "loss", float("inf")),
        ("bits_per_byte", "loss", float("nan")),
        ("calibration_error", "probabilities", [float("nan"), 0.5]),
    ],
)
def test_a_value_that_is_not_finite_gives_nan_and_a_reason(name: str, key: str, broken: object) -> None:
    made = records(name, 6, seed=3)
    made[4][key] = broken
    score = metrics.get(name).score(made)
    assert np.isnan(score.value)
    assert score.reason == "1 of 6 items have a value that is not finite (first at row 4)"
    assert score.items is None or np.flatnonzero(np.isnan(score.items)).tolist() == [4]
