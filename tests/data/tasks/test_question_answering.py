"""Question answering: the answer's tokens are trained, long contexts read in windows, spans mapped back."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graft.data.tasks.question_answering import QuestionAnswering

CONTEXT = "the cat sat on the mat . a dog ran to the park and saw a bird . how many apples ? " * 4


def task_of(**options: Any) -> QuestionAnswering:
    return QuestionAnswering(**{"max_length": 40, "longest_answer": 16, "unanswerable": False, **options})


def row_of(text: str, start: int, context: str = CONTEXT) -> dict[str, Any]:
    return {"question": "Who sat?", "context": context, "answers": [{"text": text, "answer_start": start}]}


class Pointer(torch.nn.Module):
    """A model that points at given tokens: scores are read off the ids, so that each window has its own best span."""

    def __init__(self, starts: torch.Tensor, ends: torch.Tensor) -> None:
        super().__init__()
        self.starts, self.ends = torch.nn.Parameter(starts), torch.nn.Parameter(ends)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(start_logits=self.starts[input_ids], end_logits=self.ends[input_ids])


@pytest.mark.parametrize("family", ["wordpiece", "byte_level", "metaspace"])
@given(data=st.data())
def test_the_trained_span_is_the_answer(shared: Any, family: str, data: st.DataObject) -> None:
    words = CONTEXT.split()
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 5, len(words) - 1)))
    start = len(" ".join([*words[:first], ""]))
    answer = " ".join(words[first : last + 1])
    tokenizer = shared(family)
    task = task_of()
    windows = task.windows(row_of(answer, start, " ".join(words)), tokenizer)
    assert all(len(window["input_ids"]) <= 40 for window in windows)
    holding = [window for window in windows if not task.masked(window)]
    assert holding, "some window must hold the answer"
    for window in holding:
        left = window["offsets"][window["start_positions"]][0]
        right = window["offsets"][window["end_positions"]][1]
        assert window["context"][left:right].strip() == answer
    assert not task.masked(task.encode(row_of(answer, start, " ".join(words)), tokenizer))


def test_the_best_span_over_all_windows_is_told(shared: Any) -> None:
    words = shared("wordpiece")
    task = task_of()
    row = {"question": "how many", "context": "the cat sat on " * 20 + "a dog ran to the park", "answers": []}
    batch = task.collate(task.features([row], words), words)
    assert batch["input_ids"].shape[0] > 2
    starts, ends = torch.zeros(len(words)), torch.zeros(len(words))
    dog, park = words("dog")["input_ids"][1:-1], words("park")["input_ids"][1:-1]
    starts[dog[0]], ends[park[-1]] = 5.0, 5.0
    records = task.predict(Pointer(starts, ends), batch, words)
    assert len(records) == batch["input_ids"].shape[0]
    assert [record["output"] for record in task.gather(records)] == ["dog ran to the park"]
    # The same scores in the question count for nothing, and no span is longer than allowed.
    asked = {**row, "question": "dog park", "context": "the cat sat on the mat"}
    record = task.predict(Pointer(starts, ends), task.collate(task.features([asked], words), words), words)[0]
    assert record["output"] in asked["context"] and record["score"] == 0
    short = task_of(longest_answer=2)
    assert len(short.gather(short.predict(Pointer(starts, ends), batch, words))[0]["output"].split()) <= 2


def test_no_answer_is_told_only_when_learned_and_best(shared: Any) -> None:
    words = shared("wordpiece")
    row = {"question": "how many", "context": "the cat sat", "answers": []}
    starts = torch.zeros(len(words))
    starts[words.cls_token_id] = 3.0
    for learned in (False, True):
        task = task_of(unanswerable=learned)
        record = task.predict(Pointer(starts, starts), task.collate(task.features([row], words), words), words)[0]
        assert (record["output"] == "") == learned
    assert task_of().reference(row) == []


def test_fit_learns_the_longest_answer_and_training_leaves_texts_out(tokenizer: Any, model: Any) -> None:
    words = tokenizer("wordpiece")
    network = model("AutoModelForQuestionAnswering", "bert", words)
    rows = [row_of("the cat", 0), {**row_of("x", 0), "answers": []}]
    task = QuestionAnswering.fit(rows, words, network.config)
    assert task.unanswerable and task.longest_answer == 16 and task.max_length == 64
    batch = task.collate(task.features(rows, words, train=True), words)
    assert "context" not in batch and network(**task.inputs(batch)).loss is not None
    full = task.collate(task.features(rows, words), words)
    records = task.predict(network, full, words)
    mean = sum(record["loss"] for record in records) / len(records)
    assert mean == pytest.approx(network(**task.inputs(full)).loss.item(), rel=1e-3)
    long = {**row_of("the cat", 0), "question": "cat " * 100}
    assert all(len(window["input_ids"]) <= 64 for window in task.windows(long, words))
