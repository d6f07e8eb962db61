"""The n-gram model against Kneser-Ney written out from its definition, token by token and set by set."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import small
from graft.scoring import score
from graft.tournament.entrants.ngram import KneserNey, NGram

TEXT = st.lists(st.integers(0, 4), min_size=2, max_size=8)


def by_definition(texts: list[list[int]], order: int, vocabulary: int, token: int, context: tuple[int, ...]) -> float:
    """p(token | context), recursively, from the list of all n-grams."""
    every = [tuple(padded[at - order + 1 : at + 1])
             for text in texts for padded in [[text[0]] * (order - 2) + text]
             for at in range(max(order - 1, 1), len(padded))]  # fmt: skip
    if order == 1:
        every = [(token,) for text in texts for token in text[1:]]

    def count(gram: tuple[int, ...]) -> int:
        if len(gram) == order:
            return sum(each == gram for each in every)
        return len({each[order - len(gram) - 1 :] for each in every if each[order - len(gram) :] == gram})

    def chance(context: tuple[int, ...]) -> float:
        lower = chance(context[1:]) if context else 1 / vocabulary
        counts = {w: c for w in range(vocabulary) if (c := count((*context, w)))}
        if not counts:
            return lower
        length = len(context) + 1
        seen = {each[order - length :] for each in every}
        ones, twos = (sum(count(gram) == n for gram in seen) for n in (1, 2))
        discount = min(max(ones / max(ones + 2 * twos, 1), 0.05), 0.95)
        total = sum(counts.values())
        return max(counts.get(token, 0) - discount, 0) / total + discount * len(counts) / total * lower

    return chance(context)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_kneser_ney_and_sums_to_one(order: int) -> None:
    texts = [[0, 1, 2, 1, 2, 3, 4], [0, 1, 2, 4, 4], [0, 3, 1, 2, 1, 4], [0, 4]]
    model = KneserNey(texts, order, 6)
    for context in itertools.product(range(6), repeat=order - 1):
        found = [model.probability(token, context) for token in range(6)]
        assert sum(found) == pytest.approx(1, abs=1e-12) and min(found) > 0
        if sum(context) % 3 == 0:
            expected = [by_definition(texts, order, 6, token, context) for token in range(6)]
            assert found == pytest.approx(expected, abs=1e-12)


def test_a_value_computed_on_paper() -> None:
    # Bigrams 01 12 21 12 | 01 11: c(01)=2 c(12)=2 c(21)=1 c(11)=1, so D₂ = 2/(2+2·2) = 1/3. Tokens before 1: {0, 2, 1},
    # before 2: {1}: continuation counts 3 and 1, D₁ = 1/(1+0), held at 0.95.
    model = KneserNey([[0, 1, 2, 1, 2], [0, 1, 1]], 2, 4)
    lower = (3 - 0.95) / 4 + 0.95 * 2 / 4 / 4
    assert model.probability(1, ()) == pytest.approx(lower)
    assert model.probability(1, (1,)) == pytest.approx((1 - 1 / 3) / 3 + (1 / 3) * 2 / 3 * lower)
    assert model.probability(3, (3,)) == pytest.approx(0.95 * 2 / 4 / 4)  # nothing was seen after 3
    assert model.size == 4 + 2


@given(st.lists(TEXT, min_size=1, max_size=6), st.integers(1, 4), TEXT)
def test_every_text_has_a_probability(texts: list[list[int]], order: int, asked: list[int]) -> None:
    model = KneserNey(texts, order, 7)
    loss = model.loss(asked)
    assert math.isfinite(loss) and loss > 0
    # The chain rule: the loss is the sum over its tokens.
    padded = [asked[0]] * max(order - 2, 0) + asked
    first = max(order - 1, 1)
    each = [model.probability(padded[at], tuple(padded[:at])) for at in range(first, len(padded))]
    assert loss == pytest.approx(-sum(map(math.log, each)))


def test_its_losses_are_of_the_same_tokens_as_the_bases(arena: Any) -> None:
    rows = [{"text": "the cat sat on the mat. " * n} for n in (1, 3, 9)]
    place = arena("language_modeling", rows, length=64)
    found = NGram().fit(place, place.train, 0).answer(place.test)
    base = score(place.model, place.tokenizer, place.task, place.test)
    assert [(r["item"], r["tokens"], r["bytes"]) for r in found] == [(r["item"], r["tokens"], r["bytes"]) for r in base]
    assert all(one["loss"] < other["loss"] for one, other in zip(found, base, strict=True))
    tokens = [0, *place.tokenizer(rows[1]["text"])["input_ids"], 0]
    texts = [[0, *place.tokenizer(row["text"])["input_ids"], 0] for row in rows]
    assert found[1]["loss"] == pytest.approx(KneserNey(texts, 3, len(place.tokenizer)).loss(tokens))


@pytest.mark.parametrize("pairs", [False, True])
def test_labels_by_bayes_rule(arena: Any, pairs: bool) -> None:
    cells = [{"text": text, "label": kind, **({"text_pair": "by the river"} if pairs else {})}
             for text, kind in small.sentences(60, 3)]  # fmt: skip
    place = arena("classification", cells[:40], cells[40:])
    answerer = NGram(order=2).fit(place, place.train, 0)
    records = answerer.answer(place.test)
    assert sum(r["output"] == row["label"] for r, row in zip(records, cells[40:], strict=True)) >= 18
    vocabulary = len(place.tokenizer)

    def tokens(row: dict[str, Any]) -> list[int]:
        texts = [row["text"], *([row["text_pair"]] if pairs else [])]
        return [*(t for text in texts for t in [vocabulary, *place.tokenizer(text)["input_ids"]]), vocabulary + 1]

    joint = []
    for label in ("animal", "plant"):
        mine = [tokens(row) for row in cells[:40] if row["label"] == label]
        joint.append(math.log(len(mine) / 40) - KneserNey(mine, 2, vocabulary + 2).loss(tokens(cells[40])))
    odds = math.exp(joint[0] - joint[1])
    assert records[0]["probabilities"] == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])
