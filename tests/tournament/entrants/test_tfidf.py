"""TF-IDF equals a pipeline put together by hand, and formulas written out."""

import math
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

import small
from graft.tournament.entrants.tfidf import TfIdf

CLASSES = [{"text": text, "label": kind} for text, kind in small.sentences(40, 3)]
TEST = [{"text": text, "label": kind} for text, kind in small.sentences(70, 3)[40:]]


@pytest.mark.parametrize("settings", [{}, {"C": 10.0, "ngrams": 1}, {"analyzer": "char"}])
def test_classes_as_by_hand(arena: Any, settings: dict[str, Any]) -> None:
    place = arena("classification", CLASSES, TEST)
    chosen = TfIdf(**settings)
    kind = {"analyzer": "char_wb", "ngram_range": (2, 5)} if chosen.analyzer == "char" else {
        "analyzer": "word", "ngram_range": (1, chosen.ngrams), "token_pattern": r"\b\w+\b"}  # fmt: skip
    by_hand = make_pipeline(TfidfVectorizer(sublinear_tf=True, **kind), LogisticRegression(C=chosen.C, max_iter=2000))
    by_hand.fit([row["text"] for row in CLASSES], [row["label"] for row in CLASSES])
    answerer = chosen.fit(place, place.train, 0)
    records = answerer.answer(place.test)
    expected = by_hand.predict_proba([row["text"] for row in TEST])
    assert np.allclose([record["probabilities"] for record in records], expected, atol=1e-6)
    assert [record["output"] for record in records] == by_hand.predict([row["text"] for row in TEST]).tolist()
    right = sum(record["output"] == row["label"] for record, row in zip(records, TEST, strict=True))
    assert right > 0.9 * len(TEST)
    coefficients = by_hand.named_steps["logisticregression"]
    assert answerer.trainable == coefficients.coef_.size + coefficients.intercept_.size
    assert answerer.stored > answerer.trainable * 8


def test_the_weight_of_a_word_written_out(arena: Any) -> None:
    rows = [{"text": "a a b", "label": 1.0}, {"text": "b", "label": 2.0}, {"text": "c b", "label": 6.0}]
    place = arena("regression", rows)
    idf = {word: math.log(4 / (1 + df)) + 1 for word, df in (("a", 1), ("b", 3), ("c", 1))}
    table = np.array([[(1 + math.log(2)) * idf["a"], idf["b"], 0], [0, idf["b"], 0], [0, idf["b"], idf["c"]]])
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    # Ridge regression in closed form, the intercept not penalized.
    centered, labels = table - table.mean(0), np.array([1.0, 2.0, 6.0])
    weights = np.linalg.solve(centered.T @ centered + np.eye(3) / 10.0, centered.T @ (labels - 3.0))
    found = TfIdf(C=10.0, ngrams=1).fit(place, place.train, 0).answer(place.test)
    assert [record["output"] for record in found] == pytest.approx((centered @ weights + 3.0).tolist())


def test_pairs_are_both_texts_and_how_they_differ(arena: Any) -> None:
    pairs = [{"text": a["text"], "text_pair": b["text"], "label": float(a["label"] == b["label"])}
             for a, b in zip(CLASSES, TEST, strict=False)]  # fmt: skip
    place = arena("regression", pairs)
    counter = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\b\w+\b")
    counter.fit([text for row in pairs for text in (row["text"], row["text_pair"])])
    u, v = (counter.transform([row[name] for row in pairs]).toarray() for name in ("text", "text_pair"))
    model = Ridge(alpha=1.0).fit(np.hstack([u, v, np.abs(u - v), u * v]), [row["label"] for row in pairs])
    found = [record["output"] for record in TfIdf().fit(place, place.train, 0).answer(place.test)]
    assert found == pytest.approx(model.predict(np.hstack([u, v, np.abs(u - v), u * v])).tolist(), abs=1e-3)


def test_labels_that_these_rows_lack_have_no_probability(arena: Any) -> None:
    place = arena("classification", [*CLASSES, {"text": "none of it", "label": "zebra"}], TEST)
    records = TfIdf().fit(place, place.train[:40], 0).answer(place.test)
    assert place.task.labels == ("animal", "plant", "zebra")
    assert all(record["probabilities"][2] == 0 and sum(record["probabilities"]) == pytest.approx(1)
               for record in records)  # fmt: skip
    one = TfIdf().fit(place, place.train[-1:], 0)
    assert one.answer(place.test[:1]) == [{"item": 0, "output": "zebra", "probabilities": [0.0, 0.0, 1.0]}]
    assert one.trainable == 0
