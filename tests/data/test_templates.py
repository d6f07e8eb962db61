"""Prompt templates: what they can do, what they cannot, and how they say so."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.data.templates import columns_of, read_template, render
from graft.errors import BadInput


@given(st.text())
def test_a_column_is_rendered_as_it_is(text: str) -> None:
    assert render("{{ prompt }}", {"prompt": text}) == text
    assert render("<{{ prompt }}>\n", {"prompt": text}) == f"<{text}>\n"


def test_the_usual_things_work() -> None:
    row = {"items": ["a", "b"], "text": "Hi ", "more": ""}
    assert render("{{ items | join('; ') }}", row) == "a; b"
    assert render("{% for item in items %}{{ loop.index }}.{{ item }} {% endfor %}", row) == "1.a 2.b "
    assert render("{{ text.strip() ~ '!' }}{% if more %} {{ more }}{% endif %}", row) == "Hi!"
    assert render("{% set x = text | upper %}{{ x }}{{ items | tojson }}", row) == 'HI ["a", "b"]'
    assert columns_of("{{ items }}{% if text is defined %}{{ text }}{% endif %}{{ range(3) }}") == {"items", "text"}


def test_errors_name_the_line_and_the_column() -> None:
    with pytest.raises(BadInput, match=r"line 2: 'promt' is undefined \(did you mean 'prompt'\?\)\. .* label\.$"):
        render("first\n{{ promt }}", {"prompt": "x", "label": 1})
    with pytest.raises(BadInput, match="line 3"):
        render("a\nb\n{% if %}", {"a": 1})
    with pytest.raises(BadInput, match=r"is unsafe\.$"):
        render("{{ a.__class__ }}", {"a": 1})
    with pytest.raises(BadInput, match=r"No filter named 'lang'\.$"):
        render("{{ a | lang }}", {"a": 1})
    with pytest.raises(BadInput, match=r"line 2: .*divi"):
        render("a\n{{ 1 / a }}", {"a": 0})


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ a.__init__.__globals__ }}",
        "{{ a | attr('__class__') }}",
        "{{ range(10 ** 7) }}",
        "{{ 'x' * 10 ** 8 }}",
        "{{ a * 100000000 }}",
        "{{ 10 ** 10000 }}",
        "{{ '%099999999d' % 3 }}",
        "{{ a.ljust(10 ** 9) }}",
        "{{ '{:>99999999}'.format(a) }}",
        "{{ a | center(10 ** 9) }}",
        "{{ (a * 9999).replace('y', a * 9999) }}",
        "{{ (a * 9999) | replace('y', a * 9999) }}",
        "{{ (a * 9999).join(a * 9999) }}",
        "{% set b = a * 9999 %}" + "{% set b = b ~ b %}" * 40 + "{{ b }}",
        "{% set b = a * 9999 %}" + "{% set b = b + b %}" * 40 + "{{ b }}",
        "{% set b %}{{ a }}{{ a }}{% endset %}{{ b }}",
        "{% macro m(x) %}{{ m(x) }}{{ m(x) }}{% endmacro %}{{ m(a) }}",
        "{% for i in a recursive %}{{ loop(a) }}{% endfor %}",
        "{% include 'other' %}",
        "{% for i in range(99999) %}{{ a * 99 }}{% endfor %}",
    ],
)
def test_a_template_reaches_nothing_and_uses_little(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(BadInput, match="template"):
        render(template, {"a": "y" * 20})
    assert time.monotonic() - started < 2


def test_loops_that_print_nothing_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.data.templates.SECONDS", 0.2)
    loops = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    with pytest.raises(BadInput, match=r"more than 0\.2 seconds"):
        render(loops, {})


def test_a_template_is_a_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.jinja").write_text("Q: {{ question }}\nA:\n")
    assert read_template(str(tmp_path / "prompt.jinja")) == "Q: {{ question }}\nA:"
    assert read_template("{{ question }}") == "{{ question }}"
    with pytest.raises(BadInput, match="no column"):
        read_template("prompt.jinja")
