"""Splits made by hash: reproducible, blind to order, near-duplicates on one side, every row once."""

import random
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.data.rows import Row
from graft.data.splits import SPLITS, check_fractions, split_rows
from graft.errors import BadInput

TEXTS = st.lists(st.text(alphabet="abc ", min_size=1, max_size=30), min_size=1, max_size=30)
SHARES = (0.6, 0.2, 0.2)


def made(texts: list[str]) -> list[Row]:
    return [Row({"text": text}, f"f:{number}") for number, text in enumerate(texts)]


def sides(rows: list[Row], seed: int = 0) -> dict[str, str]:
    return {row.where: split for split, part in split_rows(rows, SHARES, seed).items() for row in part}


@given(TEXTS, st.integers(0, 3), st.randoms())
def test_order_does_not_matter_and_every_row_is_somewhere(texts: list[str], seed: int, shuffle: random.Random) -> None:
    rows = made(texts)
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    assert sides(rows, seed) == sides(shuffled, seed)
    assert sorted(sides(rows, seed)) == sorted(row.where for row in rows)


@given(TEXTS)
def test_the_same_text_is_on_one_side(texts: list[str]) -> None:
    rows = made([*texts, *(text.upper() for text in texts)])
    side = sides(rows)
    assert all(side[f"f:{number}"] == side[f"f:{number + len(texts)}"] for number in range(len(texts)))


def test_near_duplicates_are_on_one_side() -> None:
    words = [f"w{number}" for number in range(400)]
    texts = []
    for start in range(0, 400, 20):
        sentence = words[start : start + 20]
        texts += [" ".join(sentence), " ".join([*sentence[:-1], "other"])]
    side = sides(made(texts))
    assert all(side[f"f:{number}"] == side[f"f:{number + 1}"] for number in range(0, len(texts), 2))
    assert set(side.values()) == set(SPLITS)


def test_shares_seeds_and_stability() -> None:
    rows = made([f"text {number} about {number * 7 % 1000}" for number in range(2000)])
    parts = split_rows(rows, (0.8, 0.1, 0.1), 0)
    assert abs(len(parts["train"]) - 1600) < 60 and abs(len(parts["test"]) - 200) < 45
    assert sides(rows, 0) != sides(rows, 1)
    more = [*rows, *made(["something else entirely"])]
    assert {where: side for where, side in sides(more).items() if where != "f:0"} == {
        where: side for where, side in sides(rows).items() if where != "f:0"
    }
    numbers = [int(row.where[2:]) for row in parts["train"]]
    assert numbers == sorted(numbers)


def test_no_side_is_left_empty() -> None:
    parts = split_rows(made(["one", "two", "three"]), (0.98, 0.01, 0.01), 0)
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 1, "validation": 1, "test": 1}
    assert split_rows(made(["one", "two", "three", "four"]), (0.5, 0.5, 0), 0)["test"] == []


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.1, 0.1), (0, 0.5, 0.5), (0.5, nan, 0.5), (inf, nan, 0)]
)
def test_shares_must_make_sense(shares: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="three shares"):
        check_fractions(shares)
