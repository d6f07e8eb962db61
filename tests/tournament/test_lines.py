"""Lines of a board: who is best, and who is not shown to be worse, where scores are missing or cannot be compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Compare = Callable[..., Any]


@pytest.fixture
def numbers(home: Path) -> str:
    """Rows whose label is a number: whether an animal stands in the text, more or less."""
    folder = home / "numbers"
    folder.mkdir(exist_ok=True)
    for split, count in {"train": 40, "validation": 12, "test": 20}.items():
        rows = [{"text": f"the {'cat' if at % 2 else 'oak'} in field {split} {at}", "label": at % 2 + at / 100}
                for at in range(count)]  # fmt: skip
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "numbers"


def test_a_score_that_is_undefined_is_last_and_decides_nothing(compared: Compare, numbers: str, tmp_path: Path) -> None:
    found = []
    for order in (("tfidf", "majority", "weak=tfidf"), ("majority", "weak=tfidf", "tfidf")):
        result = compared(rows=numbers, contestants=order, settings={"weak": {"C": (1e-6,)}}, task="regression",
                          metric="pearson", seeds=(0,), folder=tmp_path / "-".join(order))  # fmt: skip
        (board,) = result.standings["boards"]
        lines = {line["contestant"]: line for line in board["lines"]}
        found.append((board["best"], [(pair["a"], pair["b"]) for pair in board["pairs"]]))
        scores = {name: line["score"]["value"] for name, line in lines.items()}
        assert scores.pop("majority") is None and scores[board["best"]] == max(scores.values())
        assert lines["majority"]["status"] == "done" and not lines["majority"]["equal_to_best"]
        assert all("majority" not in names for names in result.standings["answer"]["pareto"].values())
    assert all(each == found[0] for each in found)


def test_one_item_shows_nobody_to_be_worse(compared: Compare) -> None:
    result = compared("llama", "answers", contestants=("zero_shot", "few_shot"), seeds=(0,), test_rows=1)
    (board,) = result.standings["boards"]
    assert board["best"] is not None and all(line["equal_to_best"] for line in board["lines"])
    assert sorted(result.standings["answer"]["eligible"]) == ["few_shot", "zero_shot"]


def test_labels_are_those_of_the_rows_that_were_trained_on(compared: Compare) -> None:
    boards = compared(contestants=("majority",), sizes=(8, 0)).standings["boards"]
    assert [sum(board["card"]["labels"].values()) for board in boards] == [board["rows"]["train"] for board in boards]
