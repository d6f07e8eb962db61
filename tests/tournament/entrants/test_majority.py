"""Majority: the most frequent answer of train rows, with how often each occurs."""

from typing import Any

import pytest

from graft.scoring import majority as floor
from graft.tournament.entrants.majority import Majority

CLASSES = [{"text": str(n), "label": label} for n, label in enumerate("yxyzy")]


def answers(place: Any) -> list[dict[str, Any]]:
    return Majority().fit(place, place.train, 0).answer(place.test)


@pytest.mark.parametrize("kind", ["classification", "verbalized"])
def test_labels(arena: Any, kind: str) -> None:
    place = arena(kind, CLASSES, [{"text": "new", "label": "x"}] * 2)
    expected = {"output": "y", "probabilities": [1 / 5, 3 / 5, 1 / 5]}
    assert answers(place) == [{"item": 0, **expected}, {"item": 1, **expected}]


def test_it_agrees_with_the_floor_of_a_run(arena: Any) -> None:
    place = arena("classification", CLASSES)
    found = floor(place.task, place.train, [{"item": 0, "reference": "x"}])
    assert found is not None and found[1][0]["output"] == answers(place)[0]["output"]


def test_numbers_tags_choices_and_completions(arena: Any) -> None:
    numbers = arena("regression", [{"text": "a", "label": 1.0}, {"text": "b", "label": 4.0}])
    assert [record["output"] for record in answers(numbers)] == [2.5, 2.5]
    tags = arena("tagging", [{"tokens": ["a", "b", "c"], "tags": ["O", "X", "X"]}], [{"tokens": ["a"], "tags": ["O"]}])
    assert answers(tags) == [{"item": 0, "output": ["X"]}]
    asked = [{"question": "q", "choices": ["a", "b", "c"], "answer": at} for at in (2, 2, 2, 1, 1, 0)]
    fewer = {"question": "q", "choices": ["a", "b"], "answer": 0}
    choices = answers(arena("multiple_choice", asked, [asked[0], fewer]))
    assert choices[0] == {"item": 0, "output": 2, "probabilities": [1 / 6, 2 / 6, 3 / 6]}
    assert choices[1] == {"item": 1, "output": 1, "probabilities": [1 / 3, 2 / 3]}
    texts = arena("generation", [{"prompt": str(n), "completion": text} for n, text in enumerate("aba")])
    assert [record["output"] for record in answers(texts)] == ["a", "a", "a"]


def test_completions_that_do_not_repeat_have_no_most_frequent_one(arena: Any) -> None:
    place = arena("generation", [{"prompt": "p", "completion": text} for text in "abc"])
    assert "every completion occurs once" in (Majority().refuses(place) or "")
