"""Regression: learned in units of the spread, told in units of the label."""

from typing import Any

import numpy as np
import pytest

from graft.data.tasks.regression import Regression
from graft.errors import BadInput

ROWS = [{"text": "the cat", "text_pair": "a dog " * n, "label": float(n * n)} for n in range(1, 6)]


def test_predictions_and_losses_are_in_the_right_units(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    labels = [row["label"] for row in ROWS]
    network = model("AutoModelForSequenceClassification", "bert", words, num_labels=1, problem_type="regression")
    task = Regression.fit(ROWS, words, network.config)
    assert (task.mean, task.spread) == pytest.approx((np.mean(labels), np.std(labels)))
    batch = task.collate(task.features(ROWS, words), words)
    records = task.predict(network, batch, words)
    out = network(**task.inputs(batch))
    raw = out.logits[:, 0].detach().numpy()
    assert [record["output"] for record in records] == pytest.approx(list(raw * task.spread + task.mean), rel=1e-4)
    assert np.mean([record["loss"] for record in records]) == pytest.approx(out.loss.item(), rel=1e-4)
    # The squared error in the label's unit, seen from outside.
    errors = [((record["output"] - label) / np.std(labels)) ** 2 for record, label in zip(records, labels, strict=True)]
    assert [record["loss"] for record in records] == pytest.approx(errors, rel=1e-3)
    assert task.model_options() == {"num_labels": 1, "problem_type": "regression"}
    assert task.reference(ROWS[2]) == 9.0


def test_rows_without_a_number(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    task = Regression(max_length=32, mean=1.0, spread=2.0)
    assert task.masked(task.encode({"text": "x"}, words)) and not task.masked(task.encode(ROWS[0], words))
    network = model("AutoModelForSequenceClassification", "bert", words, num_labels=1)
    record = task.predict(network, task.collate(task.features([{"text": "x"}], words), words), words)[0]
    assert "loss" not in record and isinstance(record["output"], float)
    with pytest.raises(BadInput, match="all 2 are the same"):
        Regression.fit([{"text": "x", "label": 1.0}] * 2, words, network.config)
