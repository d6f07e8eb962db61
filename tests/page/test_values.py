"""Numbers in words, the Pareto line, and which items are right, each against its definition."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.page import costs, items, standings, told, view, words
from graft.page.marks import mark

numbers = st.integers(-3, 3).map(float)
points = st.lists(st.tuples(numbers, numbers), max_size=8).map(
    lambda found: [(f"c{at}", cost, score) for at, (cost, score) in enumerate(found)]
)


@given(points, st.booleans(), st.booleans())
def test_the_pareto_line_is_who_nobody_dominates(
    found: list[tuple[str, float, float]], cheap: bool, good: bool
) -> None:
    def spent(cost: float) -> float:
        return cost if cheap else -cost

    def lost(score: float) -> float:
        return -score if good else score

    free = {
        name for name, cost, score in found
        if not any(
            spent(other) <= spent(cost) and lost(rival) <= lost(score) and (other, rival) != (cost, score)
            for _, other, rival in found
        )
    }  # fmt: skip
    line = costs.front(found, lower_is_cheaper=cheap, higher_is_better=good)
    assert set(line) == free and len(line) == len(free)
    by = {name: cost for name, cost, _ in found}
    assert [spent(by[name]) for name in line] == sorted(spent(by[name]) for name in line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (words.number(-0.04, 1), "0.0"), (words.number(-1234.56, 1), "−1,234.6"), (words.number(math.nan, 1), "–"),
        (words.number(None, 1), "–"), (words.short(0.000123), "0.000123"), (words.short(0.0000123), "1.2e−05"),
        (words.short(12345.6), "12,346"), (words.short(9.996), "10"), (words.short(0), "0"), (words.short(100), "100"),
        (words.prefixed(1_048_000, "B"), "1.05 MB"),
        (words.prefixed(900, "B"), "900 B"), (words.prefixed(0, "B"), "0 B"),
        (words.seconds(3.21), "3.21 s"), (words.seconds(250), "4 min 10 s"), (words.seconds(7500), "2 h 5 min"),
        (words.seconds(3600), "1 h"),
        (words.settings({"lr": 0.003, "sites": "q v", "top": None}), "lr 0.003, sites q v"),
        (words.span("0.7 s", "1.03 s"), "0.7 to 1.03 s"), (words.span("9 s", "2 min"), "9 s to 2 min"),
        (words.span("3", "4"), "3 to 4"), (words.span("3 MiB", "3 MiB"), ""),
        (words.searched({"lr": [0.001, 0.003], "rank": [4]}), "lr 0.001 or 0.003; rank 4"),
        (words.cut("abcdef", 4), "abcd… (2 more characters)"),
        (costs.cost("trainable").shown(22713216.0), "22,713,216"),
        (costs.cost("peak_bytes").shown(3 * 2**20), "3 MiB"), (costs.cost("new_cost").shown(2.5), "2.5"),
        (costs.cost("latency_ms").shown(None), "–"),
    ],
)  # fmt: skip
def test_numbers_read_as_a_person_writes_them(text: str, shown: str) -> None:
    assert text == shown


def _item(*scores: float | None) -> items.Item:
    names = [f"c{at}" for at in range(len(scores))]
    return items.Item("b", "0", "", "in", "ref", dict.fromkeys(names, "out"), dict(zip(names, scores, strict=True)))


@given(st.integers(1, 7), st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_scores_that_are_shares_of_seeds_are_right_or_wrong(seeds: int, found: list[int]) -> None:
    scores = [100 * (each % (seeds + 1)) / seeds for each in found]
    judge = items.judge([_item(score) for score in scores])
    assert judge.graded is False and judge.cut == 50


def test_scores_of_any_other_kind_are_graded_by_their_median() -> None:
    judge = items.judge([_item(31.7, None), _item(12.25), _item(99.1)])
    assert judge.graded and judge.cut == 31.7
    assert items.judge([_item(0.31), _item(0.9), _item(1.7)]).graded
    assert items.judge([_item(None)]).cut is None


def test_samples_are_drawn_by_the_seed_and_by_nothing_else() -> None:
    good, bad = ([_item(score) for _ in range(30)] for score in (100.0, 0.0))
    same = [[of.index(item) for item in items.samples(of, 3)["b"]] for of in (good, bad)]
    assert same[0] == same[1] and len(same[0]) == items.SAMPLES
    assert items.samples(good[:2], 3)["b"] == good[:2]


def test_contestants_are_told_apart_by_color_and_shape() -> None:
    assert len({(mark(at, "method").color, mark(at, "method").shape) for at in range(56)}) == 56


@pytest.mark.parametrize(
    ("verdict", "main", "more"),
    [
        ("worse by 47.5 (32.5 to 62.5), p = 0.005", "worse by 47.5", "(32.5 to 62.5), p = 0.005"),
        ("no comparison: there are no items", "no comparison: there are no items", ""),
        ("no difference: the scores are equal on 4 items", "no difference: the scores are equal on 4 items", ""),
    ],
)  # fmt: skip
def test_a_verdict_keeps_every_word(verdict: str, main: str, more: str) -> None:
    cell = view.verdict({"verdict": verdict, "outcome": "worse", "difference": {"value": -47.5}})
    assert (cell.text, cell.more, cell.key) == (main, more, -47.5)


@pytest.mark.parametrize(
    ("unit", "better", "said"),
    [("%", True, "Loss in %"), ("per token", False, "Loss per token (lower is better)"), ("", True, "Loss")],
)
def test_a_metric_is_named_with_its_unit(unit: str, better: bool, said: str) -> None:
    assert told.metric_words({"title": "loss", "unit": unit, "higher_is_better": better}) == said


def test_boards_are_called_by_last_names_and_by_ids_where_these_are_shared() -> None:
    def board(name: str, data: str, model: str = "org/MiniLM") -> dict[str, object]:
        return {"id": name, "data": data, "model": model, "size": 1000}

    found = {"boards": [board("a", "/sets/x/trec/"), board("b", "C:\\data\\sst2"), board("c", "y/sst2")]}
    assert standings.titles(found) == {
        "a": "trec · 1,000 rows · MiniLM",
        "b": "sst2 · 1,000 rows · MiniLM (b)",
        "c": "sst2 · 1,000 rows · MiniLM (c)",
    }
