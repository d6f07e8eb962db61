"""Rows of every kind, in the form that tasks read; everything wrong with them in one error."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from graft import data
from graft.errors import BadInput, Refused


def one(row: dict[str, Any], **options: Any) -> Any:
    return data.load([row], splits="test", **options).test[0]


def test_labels_get_names_from_wherever_they_are() -> None:
    def labels(values: list[Any], **more: list[Any]) -> list[Any]:
        rows = [{"text": f"text {at}", "label": value, **{name: column[at] for name, column in more.items()}}
                for at, value in enumerate(values)]  # fmt: skip
        return [row["label"] for row in data.load(rows, splits="train").train]

    assert labels([1, 0, 1], label_text=["yes", "no", "yes"]) == ["yes", "no", "yes"]
    assert labels([1, 0], label_text=["yes", None]) == ["yes", "0"]
    assert labels(["b", "a"]) == ["b", "a"]
    assert labels([0, 1, 2.0]) == ["0", "1", "2"]
    assert labels([True, False]) == ["true", "false"]
    assert labels(["0", "1"]) == ["0", "1"]
    assert labels([0.5, 1]) == [0.5, 1.0]
    assert labels(["0.5", "2"]) == [0.5, 2.0]
    with pytest.raises(BadInput, match=r"rows:2 +label 1 is 'no' here and 'yes' elsewhere"):
        labels([1, 1], label_text=["yes", "no"])


def test_a_name_that_only_train_gives_holds_everywhere() -> None:
    train = [{"text": f"t {n}", "label": n % 2, "label_text": ["no", "yes"][n % 2]} for n in range(4)]
    loaded = data.load({"train": train, "test": [{"text": "x", "label": 1}]}, splits=(1, 0, 0))
    assert loaded.test[0]["label"] == "yes"


def test_scores_are_numbers_and_the_task_can_be_said() -> None:
    whole = [{"sentence1": "a", "sentence2": f"b {n}", "score": n} for n in range(5)]
    assert data.load(whole).task == "regression"
    labels = [{"text": f"b {n}", "label": n} for n in range(5)]
    assert data.load(labels).task == "classification"
    assert data.load(labels, task="regression").task == "regression"
    with pytest.raises(BadInput, match="no finite number: 'good'"):
        data.load([{"text": "a", "label": "good"}], task="regression")


def test_conversations_of_every_make() -> None:
    expected = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert one({"messages": expected})["messages"] == expected
    assert one({"messages": json.dumps(expected)})["messages"] == expected
    shared = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}, {"from": "human", "value": "?"}]
    assert one({"conversations": shared})["messages"] == expected
    assert one({"instruction": "hi", "output": "ho"})["messages"] == expected
    assert one({"instruction": "say", "input": "hi", "output": "ho"})["messages"][0]["content"] == "say\n\nhi"
    asked = one({"instruction": "say", "input": "hi", "output": "ho"}, task="generation")
    assert (asked["prompt"], asked["completion"]) == ("say\n\nhi", "ho")


def test_answers_of_every_make() -> None:
    row = {"question": "who?", "context": "Ann saw Bob."}
    expected = [{"text": "Bob", "answer_start": 8}]
    for answers in (expected, {"text": ["Bob"], "answer_start": [8]}, ["Bob"], "Bob", json.dumps(expected)):
        assert one({**row, "answers": answers})["answers"] == expected
    assert one({**row, "answers": {"text": [], "answer_start": []}})["answers"] == []
    with pytest.raises(BadInput, match=r"'Bob' is not in the context where it should be \('Ann' is at 0\)"):
        one({**row, "answers": [{"text": "Bob", "answer_start": 0}]})


@pytest.mark.parametrize("answer", [1, "1", "B", "b", "two"])
def test_choices_of_every_make(answer: Any) -> None:
    row = one({"question": "which?", "choices": ["one", "two"], "answer": answer})
    assert (row["choices"], row["answer"]) == (["one", "two"], 1)


def test_choices_in_columns_and_with_their_own_names() -> None:
    copa = one({"premise": "It rained.", "question": "effect", "choice1": "wet", "choice2": "dry", "label": 0})
    assert copa["question"] == "It rained. What happened as a result?"
    assert (copa["choices"], copa["answer"]) == (["wet", "dry"], 0)
    arc = one({"question": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"})
    assert arc["answer"] == 1
    with pytest.raises(BadInput, match="names none of the 2 choices"):
        one({"question": "?", "choices": ["a", "b"], "answer": 2})


def test_several_references() -> None:
    rows = [{"prompt": "p", "completion": ["one", "two"]}, {"prompt": "q", "completion": "three"}]
    loaded = data.load({"train": rows, "test": rows}, splits=(1, 0, 0))
    assert [row["completion"] for row in loaded.train] == ["one", "two", "three"]
    assert [row["references"] for row in loaded.test] == [["one", "two"], ["three"]]
    assert any("became 3" in note for note in loaded.notes)


def test_test_files_may_have_other_columns_than_train() -> None:
    sources = {
        "train": [{"dialogue": "d", "summary": "s"}],
        "test": [{"dialogue": "e", "summaries": ["s", "t"]}],
    }
    loaded = data.load(sources, splits=(1, 0, 0))
    assert loaded.test[0]["references"] == ["s", "t"]
    assert data.load(sources, columns="prompt=dialogue,completion=summary", splits=(1, 0, 0)).hash == loaded.hash
    with pytest.raises(BadInput, match="different kinds of rows: train prompt,completion, test text"):
        data.load({"train": sources["train"], "test": [{"text": "x"}]})


def test_templates_stand_in_for_a_prompt_column() -> None:
    row = {"triples": ["a", "b"], "texts": ["one"]}
    loaded = data.load([row], columns="references=texts", template="{{ triples | join }}", splits="test")
    assert (loaded.task, loaded.template) == ("generation", "{{ triples | join }}")
    with pytest.raises(BadInput, match="uses no column"):
        data.load([row], columns="references=texts", template="nothing {# here #}", splits="test")
    with pytest.raises(BadInput, match="the prompt is a list; write a --template"):
        one({"prompt": ["a", "b"], "completion": "c"})


def test_cells_of_a_csv_hold_lists(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('tokens,tags\n"[""a b"", ""c""]","[""O"", ""B-X""]"\nd e,O O\n')
    rows = data.load(path, splits="train").train
    assert [(row["tokens"], row["tags"]) for row in rows] == [(["a b", "c"], ["O", "B-X"]), (["d", "e"], ["O", "O"])]


def test_every_bad_row_is_named_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"text": "good", "label": 0}\n{"text": "  ", "label": 1}\n{"label": 1}\n{"text": 7, "label": 1}\n'
        b'{"text": "x", "label": null}\n{"text": "\xe9", "label": 1}\nnot json\n{"text": "fine", "label": 1}\n'
    )
    with pytest.raises(BadInput) as told:
        data.load(path)
    message = str(told.value)
    for line, what in [(2, "text is empty"), (3, "no column text"), (4, "text holds int"), (5, "no label"),
                       (6, "not UTF-8"), (7, "not JSON")]:  # fmt: skip
        assert f"{path}:{line}  {what}" in message
    assert "--allow unreadable" in message and "--allow empty" in message
    assert len(data.load(path, allow=("unreadable", "empty"), splits="train").train) == 2
    with pytest.raises(BadInput, match="no such allowance: everything"):
        data.load(path, allow=("everything",))


def test_many_complaints_are_counted_not_listed() -> None:
    with pytest.raises(BadInput) as told:
        data.load([{"text": "", "label": 1}] * 500)
    assert "empty: 500 complaints" in str(told.value) and "and 480 more" in str(told.value)
    assert len(str(told.value).splitlines()) < 30


def test_preferences_are_known_and_refused() -> None:
    with pytest.raises(Refused, match="prompt=prompt,completion=chosen"):
        data.load([{"prompt": "p", "chosen": "a", "rejected": "b"}])
    loaded = data.load(
        [{"prompt": "p", "chosen": "a", "rejected": "b"}], columns="prompt=prompt,completion=chosen", splits="train"
    )
    assert loaded.train[0]["completion"] == "a"


def test_splits_are_made_carved_or_kept() -> None:
    rows = [{"text": f"this is text number {n}", "label": n % 2} for n in range(200)]
    made = data.load(rows)
    assert set(made.splits) == {"train", "validation", "test"}
    assert sum(len(part) for part in made.splits.values()) == 200
    assert made.hash == data.load(rows).hash != data.load(rows, seed=1).hash
    carved = data.load({"train": rows[:100], "test": rows[100:]})
    assert len(carved.test) == 100 and len(carved.train) + len(carved.validation) == 100
    assert any("carved from train" in note for note in carved.notes)
    kept = data.load({"train": rows[:100], "validation": rows[100:]})
    assert (len(kept.train), len(kept.validation), len(kept.test)) == (100, 100, 0)
    with pytest.raises(BadInput, match="is none of train, validation, test"):
        data.load(rows, splits="dev")
    with pytest.raises(BadInput, match="source without splits"):
        data.load({"train": rows}, splits="test")


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = data.load(rows, splits="train").hash
    assert known == data.load(path, splits="train").hash
    assert known != data.load(rows[::-1], splits="train").hash != data.load(rows, splits="test").hash
    # Written out: a run folder made by one version must be recognized by the next.
    written = (
        b'\n# train\n{"label":"0","label_id":0,"text":"a"}\n{"label":"1","label_id":1,"text":"b"}\n'
        b"\n# validation\n\n# test\n"
    )
    assert known == hashlib.sha256(written).hexdigest()
