"""Worked examples, the answer after the marker, and thinking step by step, as the model reads and writes them."""

from collections.abc import Callable
from typing import Any

import pytest

from graft.tournament.entrants.chain_of_thought import ChainOfThought

WITHIN = [{"prompt": f"{n} twice?", "completion": f"{n} + {n} = {2 * n}.\n#### {2 * n}"} for n in range(4)]
BESIDE = [{"prompt": f"{n} twice?", "completion": f"{2 * n}", "rationale": f"{n} + {n}."} for n in range(4)]
TEST = [{"prompt": "9 twice?", "completion": "18", "rationale": "9 + 9."}]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`written("first", "second")`: what the base writes, in turn, whatever it is asked."""

    def queue(*texts: str) -> None:
        left = list(texts)
        monkeypatch.setattr("graft.data.answering._text", lambda *_: left.pop(0))

    return queue


def test_worked_examples_and_the_answer_after_the_marker(
    arena: Any, seen: list[str], written: Callable[..., None]
) -> None:
    place = arena("generation", BESIDE, TEST)
    answerer = ChainOfThought(k=2).fit(place, place.train, 0)
    written("9 + 9.\n#### 18\n\n4 twice?\n")
    assert answerer.answer(place.test) == [{"item": 0, "output": "18"}]
    asked = seen[0]
    assert asked.endswith("\n\n9 twice?\n")
    shown = asked.split("\n\n")[:-1]
    possible = {f"{row['prompt']}\n{row['rationale']}\n#### {row['completion']}" for row in BESIDE}
    assert len(shown) == 2 and set(shown) <= possible
    assert answerer.stored == len(asked) - len("9 twice?\n") and answerer.trainable == 0
    written("9 + 9.\nso 18")  # no marker: the last line
    assert answerer.answer(place.test)[0]["output"] == "so 18"
    written("")
    assert answerer.answer(place.test)[0]["output"] == ""


def test_steps_within_the_completion_stay_in_the_output(
    arena: Any, seen: list[str], written: Callable[..., None]
) -> None:
    place = arena("generation", WITHIN, [{"prompt": "9 twice?", "completion": "9 + 9 = 18.\n#### 18"}])
    written("9 + 9 = 18. #### 18 \n\n1 twice?")
    (record,) = ChainOfThought(k=1).fit(place, place.train, 0).answer(place.test)
    assert record["output"] == "9 + 9 = 18.\n#### 18" == place.task.reference(place.test[0])[0]
    assert seen[0] in {f"{row['prompt']}\n{row['completion']}\n\n9 twice?\n" for row in WITHIN}


def test_a_column_of_steps_that_ends_in_the_answer(arena: Any, seen: list[str], written: Callable[..., None]) -> None:
    rows = [{"prompt": row["prompt"], "completion": "7", "answer": row["completion"]} for row in WITHIN]
    place = arena("generation", rows, TEST)
    assert ChainOfThought().refuses(place) == (
        "chain_of_thought: rows show no steps; there is no column reasoning or rationale, nor '####' in completions."
    )
    entrant = ChainOfThought(k=1, column="answer")
    assert entrant.refuses(place) is None
    written("x #### 18")
    assert entrant.fit(place, place.train, 0).answer(place.test)[0]["output"] == "18"
    n = seen[0][0]
    assert seen[0].startswith(f"{n} twice?\n{n} + {n} = {2 * int(n)}.\n#### 7\n\n")


def test_without_examples_it_is_asked_to_think_and_then_for_the_answer(
    arena: Any, seen: list[str], written: Callable[..., None]
) -> None:
    place = arena("generation", BESIDE, TEST)
    written("first 9, then 9.", "18.\nIs it?")
    assert ChainOfThought(k=0).fit(place, place.train, 0).answer(place.test) == [{"item": 0, "output": "18."}]
    assert seen == [
        "9 twice?\nLet's think step by step.",
        "9 twice?\nLet's think step by step. first 9, then 9.\nTherefore, the answer is",
    ]
    within = arena("generation", WITHIN, TEST)
    written("first 9, then 9.", "18\n")
    answerer = ChainOfThought(k=0).fit(within, within.train, 0)
    assert answerer.answer(within.test)[0]["output"] == "first 9, then 9.\n#### 18"


def test_the_room_is_that_of_worked_answers_and_rows_keep_their_order(arena: Any, seen: list[str]) -> None:
    rows = [{**row, "rationale": "s" * 60} for row in BESIDE]
    asked = [{**TEST[0], "prompt": "q" * size} for size in (5, 50, 20)]
    place = arena("generation", rows, asked, length=256)
    answerer = ChainOfThought(k=3).fit(place, place.train, 0)
    records = answerer.answer(place.test)
    assert [record["item"] for record in records] == [0, 1, 2]
    assert answerer.notes and "of 3 examples" in answerer.notes[0]
    single = [answerer.answer([row])[0]["output"] for row in place.test]
    assert [record["output"] for record in records] == single
