"""Against scikit-learn and torchmetrics, on whole test sets and on resamples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torchmetrics.functional.classification import multiclass_calibration_error

from graft import metrics
from graft.errors import BadInput

LABELS = st.sampled_from(["a", "b", "c", "d"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=2, max_size=30)


def made(pairs: list[tuple]) -> list[dict]:
    return [{"item": i, "output": output, "reference": reference} for i, (output, reference) in enumerate(pairs)]


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_equal_to_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    outputs, references = zip(*pairs, strict=True)
    assert metrics.get("accuracy").score(made(pairs)).value == pytest.approx(100 * accuracy_score(references, outputs))
    assert metrics.get("f1").score(made(pairs)).value == pytest.approx(
        100 * f1_score(references, outputs, average="macro")
    )
    if len(set(references)) > 1:
        assert metrics.get("matthews").score(made(pairs)).value == pytest.approx(
            100 * matthews_corrcoef(references, outputs)
        )
    if "a" in outputs + references:
        binary = f1_score([r == "a" for r in references], [o == "a" for o in outputs])
        assert metrics.get("f1:a").score(made(pairs)).value == pytest.approx(100 * binary)


@pytest.mark.parametrize("name", ["f1", "matthews"])
def test_resamples_equal_scikit_learn(name: str) -> None:
    draw = np.random.default_rng(0)
    references = draw.integers(0, 5, 40)
    outputs = np.where(draw.random(40) < 0.6, references, draw.integers(0, 5, 40))
    chosen = draw.integers(0, 40, (20, 40))
    weights = np.stack([np.bincount(row, minlength=40) for row in chosen]).astype(float)
    metric = metrics.get(name)
    got = metric.weighted(metric.statistics(made(list(zip(outputs, references, strict=True)))), weights)
    score = matthews_corrcoef if name == "matthews" else lambda true, given: f1_score(true, given, average="macro")
    assert got == pytest.approx([100 * score(references[row], outputs[row]) for row in chosen])


def test_an_output_that_is_no_label_is_wrong_and_no_class() -> None:
    records = made([("a", "a"), (None, "a"), ("b", "b"), (None, "b")])
    assert metrics.get("accuracy").score(records).value == 50
    # each class: precision 1, recall 1/2
    assert metrics.get("f1").score(records).value == pytest.approx(200 / 3)
    assert metrics.get("f1").score(records).items.tolist() == [100, 0, 100, 0]
    as_class = matthews_corrcoef(["a", "a", "b", "b"], ["a", "none", "b", "none"])
    assert metrics.get("matthews").score(records).value == pytest.approx(100 * as_class)


def test_matthews_of_one_class_is_undefined_and_of_constant_outputs_zero() -> None:
    one = metrics.get("matthews").score(made([("a", "a"), ("b", "a")]))
    assert np.isnan(one.value) and one.reason == "every reference is the same label"
    assert metrics.get("matthews").score(made([("a", "a"), ("a", "b")])).value == 0


def test_f1_of_a_label_that_never_occurs_is_undefined() -> None:
    score = metrics.get("f1:z").score(made([("a", "a")]))
    assert np.isnan(score.value) and score.reason == "the label 'z' is neither predicted nor true for any item"


def test_f1_of_a_whole_number_label_and_a_numpy_one() -> None:
    records = made([(1, np.int64(1)), (1, 0), (0, 0)])
    assert metrics.get("f1:1").score(records).value == pytest.approx(200 / 3)
    assert metrics.get("accuracy").score(records).value == pytest.approx(200 / 3)


def test_numbers_against_strings_are_refused_not_scored_zero() -> None:
    with pytest.raises(BadInput, match="different kinds, such as 1 and '1'"):
        metrics.get("accuracy").score(made([(1, "1"), (0, "0")]))
    with pytest.raises(BadInput, match="item 0: reference must be one label"):
        metrics.get("accuracy").score(made([("a", ["a", "b"])]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 60))
def test_calibration_error_equals_torchmetrics(seed: int, classes: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.full(classes, 0.4), count)
    probabilities[0] = np.eye(classes)[0]  # a confidence of exactly 1
    references = draw.integers(0, classes, count)
    rows = zip(probabilities, references, strict=True)
    records = [{"output": p.argmax(), "reference": r, "probabilities": p.tolist()} for p, r in rows]
    wanted = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(references), num_classes=classes, n_bins=15, norm="l1"
    )
    assert metrics.get("calibration_error").score(records).value == pytest.approx(
        100 * float(wanted), abs=1e-4
    )  # torchmetrics: float32


def test_logits_are_refused() -> None:
    with pytest.raises(BadInput, match=r"item 0: probabilities must lie between 0 and 1.*Apply softmax"):
        metrics.get("calibration_error").score([{"output": 1, "reference": 1, "probabilities": [-2.0, 3.0]}])
