"""The gate: what it refuses, what it counts, and what an allowance does."""

import io
from typing import Any

import pytest
from rich.console import Console

from graft import data
from graft.errors import BadInput


def rows(*texts: str, label: Any = None) -> list[dict[str, Any]]:
    return [{"text": text, "label": label or "ab"[number % 2]} for number, text in enumerate(texts)]


TRAIN = rows(*(f"this is train text number {number}" for number in range(20)))
HELD = rows(*(f"this was held back as number {number}" for number in range(6)))


@pytest.fixture
def bert(tokenizer: Any, model: Any) -> Any:
    words = tokenizer("wordpiece")
    return words, model("AutoModelForSequenceClassification", "bert", words).config


@pytest.fixture
def gpt(tokenizer: Any, model: Any) -> Any:
    words = tokenizer("byte_level")
    return words, model("AutoModelForCausalLM", "gpt2", words).config


def gated(source: Any, machine: Any, allow: tuple[str, ...] = (), **options: Any) -> tuple[data.DataSets, data.Report]:
    words, config = machine
    loaded = data.load(source, splits=(1, 0, 0), allow=allow)
    return data.check(loaded, data.fit(loaded, words, config, **options), words, allow=allow)


def test_good_data_passes_untouched(bert: Any) -> None:
    loaded = data.load({"train": TRAIN, "test": HELD}, splits=(1, 0, 0))
    same, report = data.check(loaded, data.fit(loaded, *bert), bert[0])
    assert same == loaded
    assert report.rows == {"train": 20, "test": 6} and not report.dropped
    assert (report.leaked, report.near_duplicates, report.repeated, report.cut, report.masked) == (0, 0, 0, 0, 0)
    assert report.lines() == ["data: 20 train, 6 test"]
    shown = io.StringIO()
    report.show(Console(file=shown, width=200))
    assert shown.getvalue() == "data: 20 train, 6 test\n"


def test_leaked_rows_are_refused_or_leave_train(bert: Any) -> None:
    source = {"train": [*TRAIN, *rows("This was  HELD back as number 3")], "test": HELD}
    with pytest.raises(BadInput, match=r"leakage: 1 complaint\n  train:21  is also test:4\n.*--allow leakage"):
        gated(source, bert)
    kept, report = gated(source, bert, allow=("leakage",))
    assert (len(kept.train), len(kept.test), report.leaked) == (20, 6, 1)
    assert report.dropped == {"also in validation or test": 1}
    assert kept.hash == data.load({"train": TRAIN, "test": HELD}, splits=(1, 0, 0)).hash


def test_near_duplicates_and_repeats_are_counted(bert: Any) -> None:
    long = [f"w{number}" for number in range(20)]
    source = {
        "train": [*TRAIN, *rows(" ".join([*long, "end"]), " ".join([*long, "end"]))],
        "test": [*HELD, *rows(" ".join(long))],
    }
    _, report = gated(source, bert)
    assert (report.near_duplicates, report.repeated, report.leaked) == (2, 1, 0)
    assert any("warning: 2 train rows are nearly the same" in line for line in report.lines())


def test_labels_that_train_lacks_are_refused_or_count_as_wrong(bert: Any) -> None:
    source = {"train": TRAIN, "test": [*HELD, *rows("something new", label="c")]}
    with pytest.raises(BadInput, match=r"unseen: 1 complaint\n  test:7  label c is not in train \(a, b\)"):
        gated(source, bert)
    kept, report = gated(source, bert, allow=("unseen",))
    assert (len(kept.test), report.unseen, report.masked) == (7, 1, 0)


def test_one_class_only_is_refused(bert: Any) -> None:
    with pytest.raises(BadInput, match="at least two classes"):
        gated({"train": rows("x", "y", label="a")}, bert)


def test_cut_answers_are_refused_above_a_share(gpt: Any) -> None:
    def source(long: int) -> dict[str, Any]:
        made = [{"prompt": f"p {n}", "completion": ("very " * 60 if n < long else "short")} for n in range(40)]
        return {"train": made}

    _, report = gated(source(2), gpt)
    assert report.cut == 2 and "2 answers are cut at the length limit" in report.lines()
    with pytest.raises(BadInput, match=r"cut: 3 complaints\n  train:1  the answer does not fit in 64 tokens"):
        gated(source(3), gpt)
    kept, report = gated(source(3), gpt, allow=("cut",))
    assert len(kept.train) == 40 and report.cut == 3


def test_rows_with_nothing_trained_are_refused_or_dropped(tokenizer: Any, model: Any) -> None:
    words = tokenizer("metaspace")
    # A template that leaves out some of what the assistant says.
    words.chat_template = (
        "{% for m in messages %}{{ m.role }}: {% if m.content != 'secret' %}{{ m.content }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    talks = [
        {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": "answer"}]}
        for n in range(9)
    ]
    unsaid = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "secret"}]}
    machine = words, model("AutoModelForCausalLM", "llama", words).config
    with pytest.raises(BadInput, match=r"masked: 1 complaint\n  train:10  nothing is trained: 'x'"):
        gated({"train": [*talks, unsaid]}, machine)
    kept, report = gated({"train": [*talks, unsaid]}, machine, allow=("masked",))
    assert (len(kept.train), report.masked, report.dropped) == (9, 1, {"nothing to train on": 1})


def test_rows_that_cannot_be_encoded_are_named(gpt: Any) -> None:
    words, config = gpt
    source = [{"a": "x", "completion": "y"}, {"completion": "z"}, {"a": "x2", "completion": "y"}]
    loaded = data.load(source, template="{{ a }}", splits="train")
    with pytest.raises(BadInput, match=r"unreadable: 1 complaint\n  rows:2  template, line 1: 'a' is undefined"):
        data.check(loaded, data.fit(loaded, words, config), words)
    kept, report = data.check(loaded, data.fit(loaded, words, config), words, allow=("unreadable",))
    assert len(kept.train) == 2 and report.dropped == {"not usable": 1}
    held = {"train": [source[0], source[2]], "test": [{"a": "x3", "completion": "y"}, source[1]]}
    loaded = data.load(held, template="{{ a }}", splits=(1, 0, 0))
    kept, report = data.check(loaded, data.fit(loaded, words, config), words, allow=("unreadable",))
    assert [row.where for row in kept.test] == ["test:1"] and report.rows == {"train": 2, "test": 1}


def test_everything_is_told_at_once(gpt: Any) -> None:
    made = [{"prompt": f"p {n}", "completion": "very " * 60} for n in range(5)]
    with pytest.raises(BadInput) as told:
        gated({"train": made, "test": made[:1]}, gpt)
    assert "leakage: 1" in str(told.value) and "cut: 6" in str(told.value)
    with pytest.raises(BadInput, match="no train row is left"):
        gated({"train": made, "test": made}, gpt, allow=("leakage", "cut"))
