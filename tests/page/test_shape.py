"""Standings with one thing wrong, anywhere: a page, or one message that says where; never a Python error."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graft.errors import BadInput
from graft.page import html, items, markdown, standings, table
from graft.page.shape import problems
from page import made

ODD = (None, "odd", "", -1, True, 1e308, 10**400, [], [1], {}, {"a": 1})


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every key or position, with what it stands in."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(each, dict | list):
            yield from _places(each)


def test_the_standings_of_a_comparison_have_no_problem(tmp_path: Path) -> None:
    assert list(problems(made.tournament(tmp_path, items=5))) == []


@pytest.mark.parametrize("seed", range(4))
def test_one_thing_wrong_makes_a_page_or_one_message(tmp_path: Path, seed: int) -> None:
    drawn = random.Random(seed)
    whole = json.loads(json.dumps(made.tournament(tmp_path, items=2)))
    for _ in range(20):
        found = copy.deepcopy(whole)
        holder, key = drawn.choice(list(_places(found)))
        if (odd := drawn.choice((*ODD, "left out"))) == "left out":
            del holder[key]
        else:
            holder[key] = odd
        (tmp_path / standings.NAME).write_text(json.dumps(found))
        try:
            read = standings.read(tmp_path)
        except BadInput:
            continue
        html.render(read, items.keep([], 0, 0), {})
        markdown.render(read)
        table.write_csv(tmp_path / "results.csv", read)
        table.write_parquet(tmp_path / "results.parquet", read)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["boards"][0].update(best="nobody"), "best names 'nobody', who is not on it"),
        (lambda found: found["contestants"].pop(0), "who is no contestant"),
        (lambda found: found["boards"][0]["lines"][0]["score"].update(value="1"), r"lines\[0\].score.value is str"),
        (lambda found: found["boards"][0]["lines"][0]["costs"].update(flops=10**400), "costs.flops is a number too"),
    ],
)  # fmt: skip
def test_it_says_where(tmp_path: Path, change: Any, message: str) -> None:
    found = made.tournament(tmp_path, items=2)
    change(found)
    (tmp_path / standings.NAME).write_text(json.dumps(found))
    with pytest.raises(BadInput, match=message):
        standings.read(tmp_path)
