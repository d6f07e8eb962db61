"""The `--columns` language, and which kind of rows columns make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.data.columns import ROLES, apply_columns, format_columns, parse_columns
from graft.data.detection import detect
from graft.data.rows import Row
from graft.errors import BadInput

MAPPINGS = st.dictionaries(
    st.sampled_from(ROLES), st.lists(st.text(), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5
)


@given(MAPPINGS)
def test_what_is_formatted_parses_back(columns: dict[str, tuple[str, ...]]) -> None:
    assert parse_columns(format_columns(columns)) == columns


@given(st.text(max_size=30))
def test_any_text_parses_or_is_bad_input(text: str) -> None:
    try:
        parse_columns(text)
    except BadInput:
        return
    assert "=" in text


def test_the_language() -> None:
    assert parse_columns("text=sentence,label=polarity") == {"text": ("sentence",), "label": ("polarity",)}
    assert parse_columns(' text = my text , label="a,b=c" ') == {"text": ("my text",), "label": ("a,b=c",)}
    assert parse_columns("choices=A+B+C") == {"choices": ("A", "B", "C")}
    assert parse_columns({"text": "s", "choices": ["A", "B"]}) == {"text": ("s",), "choices": ("A", "B")}
    assert parse_columns(None) == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("textsentence", "cannot read"),
        ("", "cannot read"),
        ("text=", "cannot read"),
        ("text=a,,label=b", "cannot read"),
        ("text=a,text=b", "given twice"),
        ("lable=a", "did you mean 'label'"),
    ],
)
def test_what_does_not_parse_is_explained(text: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        parse_columns(text)


def test_columns_are_added_and_the_others_stay() -> None:
    rows = [Row({"s": "x", "A": "1", "B": "2"}, "f:1"), Row({"s": "y"}, "f:2")]
    renamed = apply_columns(rows, parse_columns("text=s,choices=A+B"))
    assert dict(renamed[0]) == {"s": "x", "A": "1", "B": "2", "text": "x", "choices": ["1", "2"]}
    assert dict(renamed[1]) == {"s": "y", "text": "y"}
    assert renamed[1].where == "f:2"


@pytest.mark.parametrize(
    ("found", "kind", "columns"),
    [
        ("text label", "text,label", {}),
        ("id sentence label idx", "text,label", {"text": "sentence"}),
        ("text label label_text fold category", "text,label", {}),
        ("premise hypothesis label", "text,text_pair,label", {"text": "premise", "text_pair": "hypothesis"}),
        ("sentence1 sentence2 score", "text,text_pair,label", {"label": "score"}),
        ("question sentence label", "text,text_pair,label", {"text": "question", "text_pair": "sentence"}),
        ("tokens ner_tags id", "tokens,tags", {"tags": "ner_tags"}),
        ("prompt completion", "prompt,completion", {}),
        ("id dialogue summary topic", "prompt,completion", {"prompt": "dialogue", "completion": "summary"}),
        ("mr refs", "prompt,completion", {"prompt": "mr", "references": "refs"}),
        ("question answer final", "prompt,completion", {"prompt": "question", "completion": "answer"}),
        ("messages source", "messages", {}),
        ("id conversations", "conversations", {}),
        ("instruction input output", "instruction,input,output", {}),
        ("instruction input output text", "instruction,input,output", {}),
        ("instruction output", "instruction,output", {}),
        ("text url", "text", {}),
        ("id title context question answers", "question,context,answers", {}),
        ("question choices answer", "question,choices,answer", {}),
        ("premise question choice1 choice2 label", "question,choices,answer", {"choices": "choice1+choice2"}),
        ("ctx endings label", "question,choices,answer", {"question": "ctx", "answer": "label"}),
        ("prompt chosen rejected", "prompt,chosen,rejected", {}),
    ],
)
def test_kinds_are_told_by_their_columns(found: str, kind: str, columns: dict[str, str]) -> None:
    match = detect(found.split(), {})
    assert match.kind.name == kind
    assert {role: "+".join(match.columns[role]) for role in columns} == columns


def test_the_mapping_settles_what_is_what() -> None:
    found = ["java", "csharp", "label", "text"]
    assert detect(found, parse_columns("prompt=java,completion=csharp")).kind.name == "prompt,completion"
    assert detect(["context", "q", "label"], parse_columns("text=q")).kind.name == "text,label"
    assert detect(["a", "b"], parse_columns("completion=b"), template=True).kind.name == "prompt,completion"
    assert detect(["instruction", "input", "output"], {}, task="generation").kind.name == "instruction,input,output"


def test_in_doubt_the_choices_are_written_out() -> None:
    with pytest.raises(BadInput) as told:
        detect(["sentence", "polarity", "topic"], {})
    assert '--columns "text=sentence,label=polarity"' in str(told.value)
    assert '--columns "text=sentence,label=topic"' in str(told.value)
    with pytest.raises(BadInput) as told:
        detect(["text", "label", "prompt", "completion"], {})
    assert "--task classification" in str(told.value) and "--task generation" in str(told.value)


def test_without_a_kind_the_columns_found_and_an_example_are_shown() -> None:
    with pytest.raises(BadInput) as told:
        detect(["java", "csharp"], {})
    message = str(told.value)
    assert "java, csharp" in message and "text,text_pair,label" in message
    assert '--columns "prompt=java,completion=csharp"' in message
    with pytest.raises(BadInput, match="did you mean 'classification'"):
        detect(["text", "label"], {}, task="clasification")
