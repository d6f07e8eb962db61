"""Classification: labels in order, texts and pairs, predictions as the model's own."""

from typing import Any

import pytest

from graft.data import prepare_padding
from graft.data.tasks.classification import Classification
from graft.errors import BadInput

ROWS = [
    {"text": "the cat sat on the mat", "label": "good"},
    {"text": "a dog", "label": "bad"},
    {"text": "how many apples does Anna have", "label": "good"},
]


@pytest.mark.parametrize(("auto", "kind", "family"), [("bert", "bert", "wordpiece"), ("llama", "llama", "metaspace"),
                                                     ("gpt2", "gpt2", "byte_level")])  # fmt: skip
def test_predictions_are_the_models_own(auto: str, kind: str, family: str, tokenizer: Any, model: Any) -> None:
    words = tokenizer(family)
    network = model("AutoModelForSequenceClassification", kind, words)
    prepare_padding(words, network)
    task = Classification.fit(ROWS, words, network.config)
    assert task.labels == ("bad", "good") and task.auto(network.config) == "AutoModelForSequenceClassification"
    records = task.gather(task.predict(network, task.collate(task.features(ROWS, words), words), words))
    for record, row in zip(records, ROWS, strict=True):
        logits = network(**words(row["text"], return_tensors="pt", return_token_type_ids=False)).logits[0].softmax(-1)
        assert record["probabilities"] == pytest.approx(logits.tolist(), abs=1e-5)
        assert record["output"] == task.labels[logits.argmax()]
        assert record["loss"] == pytest.approx(-logits[task.labels.index(row["label"])].log().item(), abs=1e-4)
    assert [task.reference(row) for row in ROWS] == ["good", "bad", "good"]


def test_model_options_make_a_model_with_these_labels(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    task = Classification(max_length=64, labels=("a", "b", "c"))
    network = model("AutoModelForSequenceClassification", "bert", words, **task.model_options())
    assert network.config.num_labels == 3 and network.config.id2label[2] == "c"
    batch = task.collate(task.features([{"text": "a cat", "label": "c"}], words), words)
    assert network(**task.inputs(batch)).loss is not None


def test_pairs_are_told_apart(tokenizer: Any) -> None:
    row = {"text": "a cat", "text_pair": "a dog", "label": "a"}
    bert, llama = tokenizer("wordpiece"), tokenizer("metaspace")
    task = Classification(max_length=64, labels=("a", "b"), token_types=True)
    feature = task.encode(row, bert)
    assert bert.decode(feature["input_ids"]) == "[CLS] a cat [SEP] a dog [SEP]"
    assert set(feature["token_type_ids"]) == {0, 1} and feature["labels"] == 0
    plain = Classification(max_length=64, labels=("a", "b")).encode(row, llama)
    assert llama.decode(plain["input_ids"], skip_special_tokens=True).strip() == "a cat\na dog"
    assert "token_type_ids" not in plain
    short = Classification(max_length=8, labels=("a", "b")).encode({**row, "text": "a cat " * 20}, bert)
    assert len(short["input_ids"]) == 8 and bert.decode(short["input_ids"]).endswith("a dog [SEP]")


def test_labels_are_ordered_by_number_else_by_name(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    config = model("AutoModelForSequenceClassification", "bert", words).config
    numbered = [{"text": "x", "label": name, "label_id": n} for n, name in [(10, "ten"), (2, "two"), (0, "zero")]]
    assert Classification.fit(numbered, words, config).labels == ("zero", "two", "ten")
    assert Classification.fit([{"text": "x", "label": name} for name in "cab"], words, config).labels == ("a", "b", "c")
    with pytest.raises(BadInput, match="at least two classes; there is only 'a'"):
        Classification.fit([{"text": "x", "label": "a"}] * 3, words, config)


def test_unknown_and_missing_labels_are_not_trained(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    task = Classification(max_length=64, labels=("a", "b"))
    rows = [{"text": "x", "label": "c"}, {"text": "x"}, {"text": "x", "label": "b"}]
    features = task.features(rows, words)
    assert [feature["labels"] for feature in features] == [-100, -100, 1]
    assert [task.masked(feature) for feature in features] == [True, True, False]
    assert [task.unseen(row) for row in rows] == [["c"], [], []]
    network = model("AutoModelForSequenceClassification", "bert", words)
    records = task.predict(network, task.collate(features, words), words)
    assert ["loss" in record for record in records] == [False, False, True]
