"""The search: equal numbers of trials, halved by the validation score, told from the results alone."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.tournament.contestant import assembled
from graft.tournament.design import Design, Place, Rows
from graft.tournament.search import candidates, course, expected, shares


def design(trials: int, seeds: tuple[int, ...] = (0, 1, 2), names: tuple[str, ...] = ("lora", "tfidf")) -> Design:
    return Design(("base",), (Rows("rows"),), tuple(assembled(names, {})), trials=trials, seeds=seeds)


def test_the_first_candidate_is_the_contestant_as_it_stands() -> None:
    lora, tfidf = design(3).contestants
    assert [dict(each)["lr"] for each in candidates(lora, 3)] == pytest.approx([1e-3, 3e-3, 1e-3 / 3])
    assert dict(candidates(tfidf, 3)[0])["C"] == tfidf.way.C  # type: ignore[union-attr]


def test_a_given_learning_rate_is_not_searched() -> None:
    (lora,) = assembled(["lora"], {"lora": {"lr": (0.5,)}})
    assert candidates(lora, 4) == [(("lr", 0.5),)]


def test_a_point_of_a_sweep_keeps_its_value_even_where_it_is_the_default() -> None:
    points = assembled(["tfidf"], {"tfidf": {"C": (1.0, 10.0)}})
    assert [point.name for point in points] == ["tfidf C=1.0", "tfidf C=10.0"]
    assert all(candidates(point, 4) == [()] for point in points)


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, []), (2, [0.5]), (3, [0.25, 0.5]), (4, [0.25, 0.5]), (5, [0.125, 0.25, 0.5])]
)
def test_rungs_double_up_to_half_the_length(count: int, wanted: list[float]) -> None:
    assert shares(count) == wanted


@given(trials=st.integers(1, 6), scores=st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=20, max_size=20),
       higher=st.booleans())  # fmt: skip
def test_a_played_course_is_as_long_as_expected_and_ends_with_the_best(
    trials: int, scores: list[float | None], higher: bool
) -> None:
    made = design(trials)
    lora = made.contestants[0]
    results: dict[str, Any] = {}
    drawn = itertools.cycle(scores)
    while (way := course(made, Place(0, 0, 0), lora, "facts", results, higher)).waiting:
        for trial in way.waiting:
            assert trial.id not in results
            results[trial.id] = {"validation": next(drawn)}
    if way.chosen is None:
        assert all(results[trial.id]["validation"] is None for trial in way.rungs[-1:])
        return
    assert len(results) <= expected(made, lora)
    assert [trial.seed for trial in way.final] == [0, 1, 2] and all(trial.share == 1 for trial in way.final)
    last = [trial for trial in way.rungs if trial.share == (way.rungs[-1].share if way.rungs else 0)]
    known = {trial.candidate: value for trial in last if (value := results[trial.id]["validation"]) is not None}
    if known:
        assert known[way.chosen] == (max if higher else min)(known.values())


def test_who_no_seed_changes_runs_once() -> None:
    made = design(1)
    way = course(made, Place(0, 0, 0), made.contestants[1], "facts", {}, True)
    assert len(way.final) == 1 == expected(made, made.contestants[1])


def test_a_trial_is_known_by_what_decides_its_result_and_by_nothing_else() -> None:
    made = design(2, names=("lora", "again=lora", "big=lora+bitfit"))
    one, again, big = (course(made, Place(0, 0, 0), each, "facts", {}, True).waiting[0] for each in made.contestants)
    assert one.id == again.id != big.id
    other = [course(made, Place(0, 0, size), made.contestants[0], facts, {}, True).waiting[0]
             for size, facts in ((100, "facts"), (0, "other facts"))]  # fmt: skip
    assert len({one.id, *(each.id for each in other)}) == 3
