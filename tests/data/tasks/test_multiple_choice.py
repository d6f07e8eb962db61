"""Multiple choice: each choice is read with the question; rows may differ in their number of choices."""

from typing import Any

import pytest
import torch

from graft.data.tasks.multiple_choice import MultipleChoice
from graft.errors import Refused

ROWS = [
    {"question": "what sat on the mat?", "choices": ["the cat", "a dog in the park"], "answer": 0},
    {"question": "what ran?", "choices": ["a dog", "the bird", "a mat"], "answer": 2},
]


def test_predictions_are_the_models_own(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    network = model("AutoModelForMultipleChoice", "bert", words)
    task = MultipleChoice.fit(ROWS, words, network.config)
    assert task.choices == 3 and task.auto(network.config) == "AutoModelForMultipleChoice"
    batch = task.collate(task.features(ROWS, words), words)
    assert batch["input_ids"].shape[:2] == (2, 3)
    assert network(**task.inputs(batch)).loss is not None
    for record, row in zip(task.predict(network, batch, words), ROWS, strict=True):
        scores = []
        for choice in row["choices"]:
            inputs = words(row["question"], choice, return_tensors="pt", return_token_type_ids=True)
            scores.append(network(**{name: value[None] for name, value in inputs.items()}).logits[0, 0])
        chances = torch.stack(scores).softmax(-1)
        assert record["probabilities"] == pytest.approx(chances.tolist(), abs=1e-5)
        assert record["output"] == chances.argmax().item()
        assert record["loss"] == pytest.approx(-chances[row["answer"]].log().item(), abs=1e-4)
    assert task.reference(ROWS[1]) == 2
    assert task.input(ROWS[1]) == "what ran? (0) a dog (1) the bird (2) a mat"


def test_the_empty_choice_is_never_predicted(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    network = model("AutoModelForMultipleChoice", "bert", words)
    task = MultipleChoice(max_length=32, choices=5)
    rows = [{**ROWS[0], "question": f"the cat {n}", "answer": None} for n in range(8)]
    records = task.predict(network, task.collate(task.features(rows, words), words), words)
    assert all(record["output"] < 2 and len(record["probabilities"]) == 2 for record in records)
    assert not any("loss" in record for record in records)


def test_models_without_the_head_are_refused(tokenizer: Any, model: Any) -> None:
    words = tokenizer("metaspace")
    config = model("AutoModelForCausalLM", "llama", words).config
    with pytest.raises(Refused, match="no MultipleChoice head for LlamaConfig"):
        MultipleChoice(max_length=32, choices=2).auto(config)
