"""The standings in a terminal: nothing of the table is cut off, however narrow the terminal or the pipe is."""

import io
from typing import Any

import pytest
from rich.console import Console

from graft.tournament.terminal import show


def _standings() -> dict[str, Any]:
    costs = {"trainable": 6295808, "stored_bytes": 25183232, "training_seconds": 21.5, "peak_bytes": 1282408448}
    told = {"verdict": "no difference: the scores are equal on all 2 items", "outcome": "same"}
    lines = [
        {"contestant": name, "status": "done", "error": "", "costs": costs, "against_best": told,
         "score": {"value": value, "low": 34.2, "high": 100.0}}
        for name, value in (("prefix_tuning", 100.0), ("majority", 50.0))
    ]  # fmt: skip
    return {
        "metric": {"title": "accuracy", "higher_is_better": True},
        "boards": [{"id": "reviews", "rows": {"train": 35, "test": 2}, "lines": lines, "best": "prefix_tuning"}],
        "answer": {"sentence": "majority is the cheapest.", "doubled": ""},
    }


@pytest.mark.parametrize("width", [40, 80, 200])
def test_names_numbers_and_verdicts_are_whole(width: int) -> None:
    out = io.StringIO()
    show(Console(file=out, width=width), _standings())
    text = out.getvalue()
    assert "…" not in text
    for whole in ("prefix_tuning", "34.2 to 100.0", "6,295,808", "21.5 s", "the scores are equal on all 2 items"):
        assert whole in text
