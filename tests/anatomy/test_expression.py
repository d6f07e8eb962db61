"""The language of site expressions, alone: what it means and where it says it went wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.anatomy.expression import Layers, parse
from graft.anatomy.tree import ranges
from graft.errors import BadInput


def meaning(expression: str) -> list[tuple[list[str], list[str], Layers | None]]:
    return [([w.text for w in c.where], [w.text for w in c.words], c.layers) for c in parse(expression)]


def test_clauses_separate_at_semicolons_and_commas() -> None:
    assert meaning("decoder: q v; cross: k, down") == [
        (["decoder"], ["q", "v"], None),
        (["cross"], ["k"], None),
        ([], ["down"], None),
    ]


@pytest.mark.parametrize(
    ("after", "total", "layers"),
    [
        ("top 4", 12, (8, 9, 10, 11)),
        ("bottom 2", 12, (0, 1)),
        ("8-11", 12, (8, 9, 10, 11)),
        ("0 2 8-9", 12, (0, 2, 8, 9)),
        ("0,2, 8-9", 12, (0, 2, 8, 9)),
        ("3 3 2-3", 12, (2, 3)),
        ("top 12", 12, tuple(range(12))),
        ("top 13", 12, None),
        ("12", 12, None),
    ],
)
def test_layers(after: str, total: int, layers: tuple[int, ...] | None) -> None:
    ((_, words, found),) = meaning(f"q v @ {after}")
    assert words == ["q", "v"] and found is not None
    assert found.of(total) == layers


def test_a_comma_after_layers_begins_a_clause_where_no_number_follows() -> None:
    first, second = meaning("down @ 0,2, q v @ top 1")
    assert first[1] == ["down"] and first[2] is not None and first[2].of(4) == (0, 2)
    assert second[1] == ["q", "v"]


def test_layers_alone_are_the_layers_themselves() -> None:
    ((_, words, layers),) = meaning("@ top 2")
    assert words == ["layer"] and layers is not None and layers.of(5) == (3, 4)


@pytest.mark.parametrize(
    ("expression", "at", "says"),
    [
        ("", 0, "empty"),
        (" ; ", 0, "empty"),
        ("q @", 2, "no layers after '@'"),
        ("q @ top", 4, "'top' takes one number"),
        ("q @ top 0", 8, "'top' takes one number"),
        ("q @ last 3", 4, "'last' is no layer"),
        ("q @ 5-3", 4, "runs backwards"),
        ("q @ 1 @ 2", 6, "one '@'"),
        ("a: b: q", 4, "one ':'"),
        (": q", 0, "nothing before ':'"),
        ("decoder:", 7, "no role after ':'"),
    ],
)
def test_what_cannot_be_read_is_marked(expression: str, at: int, says: str) -> None:
    with pytest.raises(BadInput) as error:
        parse(expression)
    first, quoted, marker, remedy = str(error.value).split("\n")[:4]
    assert says in first and quoted == f"    {expression}" and marker == f"    {' ' * at}^" and remedy


@given(st.sets(st.integers(0, 30), min_size=1))
def test_ranges_are_read_back_as_the_layers_they_write(layers: set[int]) -> None:
    ((_, _, found),) = meaning(f"q @ {ranges(layers)}")
    assert found is not None and found.of(31) == tuple(sorted(layers))
