"""Against torchmetrics' SQuAD and cases worked by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

from graft import metrics
from graft.errors import BadInput

TEXTS = st.lists(st.sampled_from(["the", "cat", "Cat!", "a", "an", "sat", "on-mat", "42", ","]), max_size=6).map(
    " ".join
)


def score(name: str, output: str, reference: str | list[str]) -> float:
    return metrics.get(name).score([{"item": 0, "output": output, "reference": reference}]).value


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_equal_to_torchmetrics(output: str, references: list[str]) -> None:
    wanted = squad(
        [{"prediction_text": output, "id": "0"}],
        [{"answers": {"answer_start": [0] * len(references), "text": references}, "id": "0"}],
    )
    assert score("exact_match", output, references) == pytest.approx(float(wanted["exact_match"]))
    assert score("token_f1", output, references) == pytest.approx(float(wanted["f1"]), abs=1e-4)


def test_worked_by_hand() -> None:
    assert score("exact_match", "The  Cat.", "cat") == 100
    assert score("exact_match", "dog", ["cat", "a dog"]) == 100
    # shared: cat, sat; 2·2 / (3 + 2)
    assert score("token_f1", "the cat sat down", ["cat sat", "bird"]) == pytest.approx(80)
    # a word counts as often as both have it
    assert score("token_f1", "x x x", "x y") == pytest.approx(40)


def test_no_answer_is_right_where_there_is_none() -> None:
    assert score("exact_match", "", []) == score("token_f1", "", []) == 100
    assert score("exact_match", "Paris", []) == score("token_f1", "Paris", []) == 0


def test_a_number_is_no_answer() -> None:
    with pytest.raises(BadInput, match="item 0: output must be a text, got int 42"):
        score("exact_match", 42, "42")  # type: ignore[arg-type]
