"""`show_mask`, padding, and tasks stored and read back."""

import json
from typing import Any

import pytest
import torch

from graft import data
from graft.data import tasks
from graft.data.padding import pad
from graft.errors import BadInput

ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": [{"text": "a cat", "label": "good"}, {"text": "a dog", "label": "bad"}],
    "regression": [{"text": "a cat", "label": 0.5}, {"text": "a dog", "label": 2.0}],
    "tagging": [{"tokens": ["a", "cat"], "tags": ["O", "B-X"]}] * 2,
    "question_answering": [
        {"question": "who sat?", "context": "the cat sat", "answers": [{"text": "the cat", "answer_start": 0}]}
    ],
    "multiple_choice": [{"question": "who?", "choices": ["a dog", "a cat"], "answer": 1}],
    "generation": [{"prompt": "who sat?", "completion": "the cat"}],
    "chat": [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "good day"}]}],
    "language_modeling": [{"text": "the cat sat"}],
    "verbalized": [{"text": "a cat", "label": "bird"}, {"text": "a dog", "label": "park"}],
}
SHOWN = {
    "classification": "[CLS] a cat [SEP] -> ⟦good⟧",
    "regression": "[CLS] a cat [SEP] -> ⟦0.5⟧",
    "tagging": "[CLS] ⟦a/O⟧ ⟦cat/B-X⟧ [SEP] ",
    "question_answering": "[CLS] who sat? [SEP]⟦the cat⟧sat [SEP]",
    "multiple_choice": "[CLS] who? [SEP] a dog [SEP]\n⟦[CLS] who? [SEP] a cat [SEP]⟧\n",
    "generation": "<s> who sat?\n⟦the cat</s>⟧",
    "chat": "<s>User: hi\nAssistant:⟦good day</s>⟧",
    "language_modeling": "<s>⟦the cat sat</s>⟧",
    "verbalized": "<s> Text: a cat\nLabel:⟦bird⟧",
}
WORDPIECE = ("classification", "regression", "tagging", "question_answering", "multiple_choice")


def fitted(kind: str, tokenizer: Any, model: Any) -> tuple[data.Task, Any]:
    words = tokenizer("wordpiece" if kind in WORDPIECE else "metaspace")
    network = ("AutoModelForTokenClassification", "bert") if kind in WORDPIECE else ("AutoModelForCausalLM", "llama")
    return tasks.find(kind).fit(ROWS[kind], words, model(*network, words).config), words


def test_every_task_is_a_file_and_is_tested_here() -> None:
    assert tasks.kinds() == sorted(ROWS)
    with pytest.raises(BadInput, match="did you mean 'tagging'"):
        tasks.find("taging")


@pytest.mark.parametrize("kind", ROWS)
def test_what_is_trained_is_marked(kind: str, tokenizer: Any, model: Any) -> None:
    task, words = fitted(kind, tokenizer, model)
    text = data.show_mask(task, task.features(ROWS[kind], words), words, 1)
    head, _, body = text.plain.partition("\n")
    assert head == "row 0"
    assert body.replace(" ⟧", "⟧").replace("⟦ ", "⟦").rstrip("\n") == SHOWN[kind].rstrip("\n")
    marked = [text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style)]
    assert marked and all(part.startswith("⟦") and part.endswith("⟧") for part in marked)


@pytest.mark.parametrize("kind", ROWS)
def test_tasks_are_stored_as_json(kind: str, tokenizer: Any, model: Any) -> None:
    task, _ = fitted(kind, tokenizer, model)
    stored = json.loads(json.dumps(task.as_dict()))
    assert tasks.from_dict(stored) == task
    with pytest.raises(BadInput, match="max_length"):
        tasks.from_dict({name: value for name, value in stored.items() if name != "max_length"})
    with pytest.raises(BadInput, match="color"):
        tasks.from_dict({**stored, "color": "green"})


@pytest.mark.parametrize("kind", ROWS)
def test_metrics_know_the_names_and_take_the_records(kind: str, tokenizer: Any, model: Any) -> None:
    from graft import metrics

    task, words = fitted(kind, tokenizer, model)
    assert set(task.metrics) <= set(metrics.names())
    options = task.model_options()
    network = model(task.head, "bert" if kind in WORDPIECE else "llama", words, **options)
    rows = ROWS[kind]
    records = task.gather(task.predict(network, task.collate(task.features(rows, words), words), words))
    assert [record["item"] for record in records] == list(range(len(rows)))
    with_answers = [{**record, "reference": task.reference(row)} for record, row in zip(records, rows, strict=True)]
    for name in task.metrics:
        score = metrics.get(name).score(with_answers)
        assert score.value is not None or score.reason
    assert all(isinstance(task.input(row), str) and task.input(row) for row in rows)


def test_padding_is_on_the_side_asked_for(tokenizer: Any) -> None:
    words = tokenizer("wordpiece")
    features = [{"input_ids": [7, 8, 9], "attention_mask": [1, 1, 1], "labels": [-100, 8, 9], "item": 3},
                {"input_ids": [5], "attention_mask": [1], "labels": [5], "item": 4}]  # fmt: skip
    right, left = pad(features, words, "right"), pad(features, words, "left")
    assert right["input_ids"].tolist() == [[7, 8, 9], [5, 0, 0]] and left["input_ids"].tolist()[1] == [0, 0, 5]
    assert right["labels"].tolist()[1] == [5, -100, -100] and left["attention_mask"].tolist()[1] == [0, 0, 1]
    assert torch.equal(left["item"], torch.tensor([3, 4]))
    with pytest.raises(BadInput, match="no padding token"):
        pad(features, tokenizer("byte_level"), "right")


def test_padding_is_prepared_once(tokenizer: Any, model: Any) -> None:
    words = tokenizer("byte_level")
    network = model("AutoModelForSequenceClassification", "gpt2", words)
    assert network.config.pad_token_id is None
    assert "no padding token; its end token '<|end|>' pads" in str(data.prepare_padding(words, network))
    assert words.pad_token == words.eos_token and network.config.pad_token_id == words.eos_token_id
    assert data.prepare_padding(words, network) is None
    words.pad_token = words.eos_token = None
    with pytest.raises(BadInput, match="neither a padding nor an end token"):
        data.prepare_padding(words)


def test_loading_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, graft.data as d; d.load([{'text': 'a', 'label': 0}], splits='test');"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
