"""The answer: cheapest among those not shown to be worse, the Pareto set, what is open."""

from typing import Any

import pytest

from graft.tournament.answer import answered, eligible, front

METRIC = {"name": "accuracy", "title": "accuracy", "unit": "%", "higher_is_better": True}


def board(*lines: tuple[str, float | None, bool, float], pairs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Lines of name, score, whether not shown to be worse, and what it costs to store."""
    scored = [(score, name) for name, score, _, _ in lines if score is not None]
    return {
        "id": "rows", "best": max(scored, default=(0, None))[1],
        "pairs": pairs or [],
        "lines": [
            {"contestant": name, "status": "failed" if score is None else "done", "equal_to_best": equal,
             "error": None, "score": score and {"value": score},
             "costs": {} if score is None else {"stored_bytes": stored}}
            for name, score, equal, stored in lines
        ],
    }  # fmt: skip


def test_the_cheapest_of_those_that_hold_is_named() -> None:
    found = answered([board(("full", 90, True, 9e6), ("lora", 89, True, 2048), ("tfidf", 70, False, 10))], METRIC)
    assert found["cheapest"]["stored_bytes"]["contestant"] == "lora"
    assert found["sentence"] == (
        "lora is the cheapest to store (2.05 kB) of those not shown to be worse than the best, full."
    )
    assert found["pareto"]["stored_bytes"] == ["tfidf", "lora", "full"]


def test_the_best_may_be_the_cheapest_too() -> None:
    found = answered([board(("full", 90, True, 9e6), ("lora", 91, True, 2048))], METRIC)
    assert found["sentence"] == "lora is the best, and the cheapest to store (2.05 kB) of those not shown to be worse."


def test_the_only_one_left_is_not_compared_with_itself() -> None:
    found = answered([board(("lora", 90, True, 2048), ("full", None, False, 0), ("tfidf", 70, False, 10))], METRIC)
    assert found["sentence"] == "lora is the best: every other is shown to be worse, or did not finish."


def test_a_contestant_alone_is_better_than_nobody() -> None:
    assert answered([board(("a", 90, True, 5))] * 2, METRIC)["sentence"] == "a is the only contestant."


def test_two_that_hold_are_both_told_where_each_is_once_the_best() -> None:
    boards = [board(("a", 90, True, 5), ("b", 89, True, 1)), board(("a", 88, True, 5), ("b", 89, True, 1))]
    assert answered(boards, METRIC)["sentence"] == (
        "b is the cheapest to store (1 B) of those not shown to be worse than the best on any of 2 boards."
    )


def test_who_fails_or_is_worse_on_any_board_is_not_the_answer() -> None:
    boards = [board(("a", 90, True, 5), ("b", 90, True, 1)), board(("a", 90, True, 5), ("b", None, False, 0))]
    assert eligible(boards) == ["a"] and front(boards, METRIC, "stored_bytes") == ["a"]


def test_nobody_may_hold_and_nobody_may_finish() -> None:
    apart = [board(("a", 90, True, 5), ("b", 80, False, 1)), board(("a", 80, False, 5), ("b", 90, True, 1))]
    assert answered(apart, METRIC)["sentence"].startswith("No contestant holds everywhere")
    assert answered([board(("a", None, False, 0))], METRIC)["sentence"].startswith("No contestant finished")


def test_who_lost_a_seed_is_not_the_answer() -> None:
    lost = board(("full", 90, True, 9e6), ("lora", 90, True, 2048))
    lost["lines"][1]["error"] = "1 of 3 seeds failed: the loss is not finite"
    assert eligible([lost]) == ["full"]


def test_less_is_better_where_the_metric_says_so() -> None:
    perplexity = {"name": "perplexity", "title": "perplexity", "unit": "", "higher_is_better": False}
    assert front([board(("a", 20, False, 5), ("b", 10, True, 9))], perplexity, "stored_bytes") == ["a", "b"]
    assert front([board(("a", 10, True, 5), ("b", 20, False, 9))], perplexity, "stored_bytes") == ["a"]


def test_a_cost_that_not_all_have_says_so() -> None:
    found = board(("full", 90, True, 9e6), ("tfidf", 89, True, 10))
    found["lines"][0]["costs"]["flops"] = 1e9
    assert answered([found], METRIC)["cheapest"]["flops"]["sentence"] == (
        "full needs the least training compute: 1 GFLOP (not measured for tfidf)."
    )


def test_pairs_that_cannot_be_compared_are_not_settled() -> None:
    pair = {"a": "a", "b": "b", "comparison": {"outcome": "undefined", "smallest": None, "difference": {"value": 1.0}}}
    doubled = answered([board(("a", 9, True, 5), ("b", 8, True, 1), pairs=[pair])], METRIC)["doubled"]
    assert doubled == "1 pair has no comparison at all."


@pytest.mark.parametrize(
    ("difference", "said"), [(2.0, "settle 1 of 1 open pairs: a against b on rows"), (0.1, "none of them")]
)
def test_a_doubled_budget_settles_what_it_could_show(difference: float, said: str) -> None:
    pair = {
        "a": "a",
        "b": "b",
        "comparison": {"outcome": "no difference shown", "smallest": 2.5, "difference": {"value": difference}},
    }
    assert said in answered([board(("a", 9, True, 5), ("b", 8, True, 1), pairs=[pair])], METRIC)["doubled"]
