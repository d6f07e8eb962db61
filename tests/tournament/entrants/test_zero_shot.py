"""Zero-shot is `score` on the base, and nothing else."""

from typing import Any

from graft.scoring import score
from graft.tournament.entrants.zero_shot import ZeroShot

ROWS = [{"text": "a b", "label": "x"}, {"text": "b c", "label": "y"}, {"text": "a c d", "label": "x"}]


def test_it_is_the_base_asked_as_the_task_asks(arena: Any, seen: Any) -> None:
    place = arena("verbalized", ROWS)
    answerer = ZeroShot().fit(place, [], 0)
    assert answerer.answer(place.test) == score(place.model, place.tokenizer, place.task, place.test)
    assert (answerer.trainable, answerer.stored, answerer.notes) == (0, 0, [])
    assert "Text: a c d\nLabel: " in {text[: len("Text: a c d\nLabel: ")] for text in seen}
