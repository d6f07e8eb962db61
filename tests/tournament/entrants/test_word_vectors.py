"""Word vectors: the mean over the tokens of the base, or over the words of a file, computed here by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import small
from graft.errors import BadInput
from graft.tournament.entrants.word_vectors import GloveFile, WordVectors

CLASSES = [{"text": text, "label": kind} for text, kind in small.sentences(40, 3)]


def test_the_bases_embeddings_as_by_hand(arena: Any) -> None:
    place = arena("classification", CLASSES)
    table = place.model.transformer.wte.weight.detach().double().numpy()
    means = np.stack([table[place.tokenizer(row["text"])["input_ids"]].mean(0) for row in CLASSES])
    scaled = (means - means.mean(0)) / means.std(0)
    by_hand = LogisticRegression(max_iter=2000).fit(scaled, [row["label"] for row in CLASSES])
    answerer = WordVectors().fit(place, place.train, 0)
    found = [record["probabilities"] for record in answerer.answer(place.test)]
    assert np.allclose(found, by_hand.predict_proba(scaled), atol=1e-4)
    assert answerer.trainable == 16 + 1


def test_a_file_of_vectors(arena: Any, tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2\ncat 3 -4.5\n. 0 1\nat name@example.com 5 5\nCat 7 7\nCat 8 8\n", encoding="utf-8")
    vectors = GloveFile(path)
    # As it stands before lower case; words that the file lacks do not count; a text without any is 0.
    assert vectors.of(["The cat.", "zebra", ""]).tolist() == [[4 / 3, -1.5 / 3], [0, 0], [0, 0]]
    assert vectors.of(["Cat DOG"]).tolist() == [[8, 8]]
    rows = [{"text": "cat", "label": "x"}, {"text": "the", "label": "y"}]
    place = arena("classification", rows, [{"text": "CAT . cat", "label": "x"}])
    (record,) = WordVectors(vectors=str(path)).fit(place, place.train, 0).answer(place.test)
    assert record["output"] == "x" and record["probabilities"][0] > 0.5


def test_a_header_as_word2vec_writes_it_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("2 3\na 1 2 3\nb 4 5 6\n", encoding="utf-8")
    assert GloveFile(path).of(["b a"]).tolist() == [[2.5, 3.5, 4.5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a 1 2\nb 1 x\n", r"vectors.txt:2 is not a word and its numbers"),
        ("a 1 2\nb 1\n", r"vectors.txt:2 has 1 numbers, lines before had 2"),
        ("", "holds no word vectors"), (None, "cannot be read as text"),
    ],
)  # fmt: skip
def test_files_that_are_none_are_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "vectors.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=said):
        GloveFile(path).of(["a b"])
