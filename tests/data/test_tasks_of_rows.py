"""Several tasks in one set of rows: read from a column, carried by features, told to a method that needs them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import cases
import small
import zoo
from graft import data
from graft.data.task import Task
from graft.data.tasks import find
from graft.data.tasks_of_rows import check_tasks, grouped, knowing, named
from graft.errors import BadInput
from graft.methods.hyperformer import HyperFormer
from graft.methods.lora import LoRA

ROWS = [{"prompt": f"a cat {n}", "completion": "animal", "task": ["qa", "nli"][n % 2]} for n in range(8)]
BARE = [{name: row[name] for name in ("prompt", "completion")} for row in ROWS]


def loaded(rows: Sequence[dict[str, Any]], **how: Any) -> data.DataSets:
    return data.load({"train": rows[:4], "validation": rows[4:6], "test": rows[6:]}, **how)


@pytest.mark.parametrize("name", ["task", "source set"])
def test_the_column_is_found_by_its_name_or_by_the_mapping(name: str) -> None:
    rows = [{**row, name: row["task"]} for row in ROWS]
    rows = [{key: row[key] for key in ("prompt", "completion", name)} for row in rows]
    found = loaded(rows, columns=None if name == "task" else f"task={name}")
    assert found.task == "generation" and [row["task"] for row in found.train] == ["qa", "nli", "qa", "nli"]


def test_a_number_is_a_name_too_and_an_empty_cell_is_none() -> None:
    rows = [{**row, "task": each} for row, each in zip(ROWS, [1, 2, None, "", " ", ["a"], 1.5, "x"], strict=True)]
    every = [row.get("task") for part in loaded(rows).splits.values() for row in part]
    assert every[:2] == ["1", "2"] and every[-1] == "x"
    assert named([row for part in loaded(rows[:1] * 8).splits.values() for row in part]) == ("1",) * 8


def test_a_mapped_column_that_a_row_lacks_is_a_complaint() -> None:
    rows = [{**row, "src": "qa"} for row in BARE]
    del rows[2]["src"]
    with pytest.raises(BadInput, match="no column task"):
        loaded(rows, columns="task=src")


KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "generation": lambda n: {"prompt": "a cat", "completion": "animal"},
    "classification": lambda n: {"text": "a cat", "label": ["x", "y"][n % 2]},
    "verbalized": lambda n: {"text": "a cat", "label": ["cat", "dog"][n % 2]},
    "regression": lambda n: {"text": "a cat", "label": n + 0.5},
    "tagging": lambda n: {"tokens": ["a", "cat"], "tags": ["O", "A"]},
    "question_answering": lambda n: {"question": "a", "context": "a cat", "answers": [{"text": "cat"}]},
    "multiple_choice": lambda n: {"question": "a", "choices": ["cat", "dog"], "answer": 0},
    "chat": lambda n: {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "cat"}]},
    "language_modeling": lambda n: {"text": "a cat sees a dog in the field near the river"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_every_kind_carry_it_and_no_model_sees_it(kind: str) -> None:
    rows = [{**KINDS[kind](n), "task": ["qa", "nli"][n % 2]} for n in range(8)]
    found, tokenizer = loaded(rows, task=kind), small.tokenizer()
    task: Task = find(kind).fit(found.train, tokenizer, zoo.config("llama"), 16)
    for train in (True, False):
        features = task.features(found.train, tokenizer, train=train)
        assert {feature["task"] for feature in features} == {"qa", "nli"}
        batch = task.collate(features, tokenizer)
        assert tuple(batch["task"]) == named(features)
        assert "task" not in task.inputs(batch)
        for feature in features:
            assert feature["task"] == found.train[feature["item"]]["task"]


def test_blocks_of_text_hold_one_task() -> None:
    rows = [{"text": text, "task": name} for text, name in [("cat", "x"), ("rose", "y")] * 8]
    found, tokenizer = loaded(rows, task="language_modeling"), small.tokenizer()
    task = find("language_modeling").fit(found.train, tokenizer, zoo.config("llama"), 8)
    features = task.features(found.train, tokenizer, train=True)
    for feature in features:
        words = tokenizer.decode(feature["input_ids"])
        assert ("cat" in words, "rose" in words) == (feature["task"] == "x", feature["task"] == "y")
    assert grouped(features).keys() == {"x", "y"}


def test_a_method_learns_the_names_of_the_rows() -> None:
    found = loaded(ROWS)
    assert knowing(HyperFormer(), found.train, found.test) == HyperFormer(("nli", "qa"))
    given = HyperFormer(("qa", "sum", "nli"))
    assert knowing(given, found.train) == given
    assert knowing(LoRA() + HyperFormer(), found.train).methods() == (LoRA(), HyperFormer(("nli", "qa")))
    assert knowing(LoRA(), loaded(BARE).train) == LoRA()


def test_rows_that_do_not_say_it_are_refused_with_what_to_write() -> None:
    with pytest.raises(BadInput, match=r"4 of 4 rows do not say, the first train:1. .*--columns task=COLUMN"):
        knowing(HyperFormer(), loaded(BARE).train)
    half = loaded([*ROWS[:4], *BARE[4:]])
    with pytest.raises(BadInput, match="2 of 6 rows"):
        knowing(HyperFormer(), half.train, half.test)
    with pytest.raises(BadInput, match=r"knows the tasks qa, nil; rows are of nli \(did you mean 'nil'\?\)"):
        knowing(HyperFormer(("qa", "nil")), loaded(ROWS).train)
    with pytest.raises(BadInput, match="rows are of nli"):
        check_tasks(("qa",), ROWS)
    check_tasks(("only",), BARE)


def test_a_method_of_one_task_needs_no_names() -> None:
    model = zoo.tiny("llama")
    assert cases.grafted(model, "hyperformer").tasks == ()
    zoo.forward(model, zoo.batch(model))
