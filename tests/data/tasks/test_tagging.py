"""Tagging: a tag for every word, read from its first token."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.data import prepare_padding
from graft.data.tasks.tagging import Tagging
from graft.errors import BadInput

WORD = st.text(alphabet="abcXYZ123.!é東🙂", min_size=1, max_size=8)


@pytest.mark.parametrize("family", ["wordpiece", "byte_level", "metaspace"])
@given(words=st.lists(WORD, min_size=1, max_size=10))
def test_every_word_is_trained_once_at_its_first_token(shared: Any, family: str, words: list[str]) -> None:
    tokenizer = shared(family)
    task = Tagging(max_length=400, tags=("O", *(f"B-{n}" for n in range(10))), outside="O")
    tags = [f"B-{number}" for number in range(len(words))]
    feature = task.encode({"tokens": words, "tags": tags}, tokenizer)
    assert feature["words"] == len(words) and not feature["cut"]
    assert [at for at in feature["word"] if at >= 0] == list(range(len(words)))
    assert [label for label in feature["labels"] if label != -100] == list(range(1, len(words) + 1))
    # The tokens from one first token to the next spell the word.
    firsts = [position for position, at in enumerate(feature["word"]) if at >= 0]
    for number, (start, end) in enumerate(zip(firsts, [*firsts[1:], len(feature["word"])], strict=True)):
        text = tokenizer.decode(feature["input_ids"][start:end], skip_special_tokens=True)
        if family != "wordpiece":
            assert text.strip() == words[number]


def test_predictions_are_the_models_own(tokenizer: Any, model: Any) -> None:
    words = tokenizer("byte_level")
    network = model("AutoModelForTokenClassification", "gpt2", words, num_labels=3)
    prepare_padding(words, network)
    rows = [{"tokens": ["Anna", "has", "apples"], "tags": ["B-P", "O", "I-P"]}, {"tokens": ["cat"], "tags": ["O"]}]
    task = Tagging.fit(rows, words, network.config)
    assert task.tags == ("O", "B-P", "I-P") and task.outside == "O"
    records = task.predict(network, task.collate(task.features(rows, words), words), words)
    for record, row in zip(records, rows, strict=True):
        encoded = words(" ".join(row["tokens"]), return_tensors="pt", return_offsets_mapping=True)
        logits = network(input_ids=encoded["input_ids"]).logits[0]
        starts = [len(" ".join([*row["tokens"][:number], ""])) for number in range(len(row["tokens"]))]
        expected, loss = [], 0.0
        for start, tag in zip(starts, row["tags"], strict=True):
            # A byte-level token may begin with the space before the word.
            at = next(n for n, (left, right) in enumerate(encoded["offset_mapping"][0]) if left <= start < right)
            expected.append(task.tags[logits[at].argmax()])
            loss -= logits[at].log_softmax(-1)[task.tags.index(tag)].item()
        assert record["output"] == expected
        assert record["loss"] == pytest.approx(loss, abs=1e-4)


def test_words_beyond_the_limit_and_words_without_tokens(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    task = Tagging(max_length=8, tags=("B-X", "O"), outside="O")
    row = {"tokens": ["cat"] * 10, "tags": ["B-X"] * 10}
    feature = task.encode(row, words)
    assert feature["cut"] and max(feature["word"]) == 5
    network = model("AutoModelForTokenClassification", "bert", words)
    record = task.predict(network, task.collate(task.features([row], words), words), words)[0]
    assert len(record["output"]) == 10 and record["output"][6:] == ["O"] * 4
    # BERT's normalizer drops control characters: that word has no token, its neighbors keep theirs.
    odd = task.encode({"tokens": ["cat", "\u200b", "dog"], "tags": ["O", "B-X", "B-X"]}, words)
    assert [at for at in odd["word"] if at >= 0] == [0, 2] and not odd["cut"]


def test_tags_are_ordered_and_unseen_ones_told(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    config = model("AutoModelForTokenClassification", "bert", words).config
    numbers = Tagging.fit([{"tokens": list("abc"), "tags": ["10", "2", "2"]}], words, config)
    assert numbers.tags == ("2", "10") and numbers.outside == "2"
    assert numbers.unseen({"tokens": ["a"], "tags": ["7"]}) == ["7"]
    assert numbers.model_options()["num_labels"] == 2
    with pytest.raises(BadInput, match="at least two tags"):
        Tagging.fit([{"tokens": ["a"], "tags": ["O"]}], words, config)
