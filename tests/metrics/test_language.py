"""Against the definitions, written out, and against torchmetrics for perplexity."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.text import perplexity

from graft import metrics
from graft.errors import BadInput


def test_items_weigh_by_their_length() -> None:
    records = [{"loss": 10.0, "tokens": 5, "bytes": 20}, {"loss": 2.0, "tokens": 1, "bytes": 4}]
    assert metrics.get("loss").score(records).value == pytest.approx(12 / 6)
    assert metrics.get("perplexity").score(records).value == pytest.approx(math.exp(2))
    assert metrics.get("bits_per_byte").score(records).value == pytest.approx(12 / 24 / math.log(2))
    assert metrics.get("loss").score(records).items.tolist() == [2, 2]


def test_perplexity_equals_torchmetrics() -> None:
    logits = torch.randn(4, 7, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.randint(0, 11, (4, 7), generator=torch.Generator().manual_seed(1))
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(1)
    got = metrics.get("perplexity").score([{"loss": float(loss), "tokens": 7} for loss in losses]).value
    assert got == pytest.approx(float(perplexity(logits, targets)), rel=1e-6)


def test_without_tokens_there_is_no_score() -> None:
    score = metrics.get("loss").score([{"loss": 0.0, "tokens": 0}])
    assert np.isnan(score.value) and score.reason == "no item has any tokens"
    some = metrics.get("loss").score([{"loss": 0.0, "tokens": 0}, {"loss": 3.0, "tokens": 2}])
    assert some.value == 1.5 and np.isnan(some.items[0])


def test_a_perplexity_too_large_for_a_float_has_a_reason() -> None:
    score = metrics.get("perplexity").score([{"loss": 9000.0, "tokens": 1}])
    assert np.isnan(score.value) and "above 700 nats" in score.reason


def test_fractions_of_tokens_are_refused() -> None:
    with pytest.raises(BadInput, match="item 0: tokens must be a whole number"):
        metrics.get("loss").score([{"loss": 1.0, "tokens": 1.5}])
