"""The block drawn twice from one description: the sites of a method are lit in both, and nothing leaves the page."""

import io
from xml.etree import ElementTree

import pytest
from rich.console import Console

import graft
from graft.drawing import Mark, marks, reference, svg, terminal
from graft.drawing.svg import COLORS


def marked(method: graft.Method) -> tuple[Mark, ...]:
    adapter = graft.attach(reference(), method)
    try:
        return marks(adapter)
    finally:
        graft.detach(reference())


def lines(method: graft.Method) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal(marked(method)))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_signs_stand_under_the_sites_that_are_touched() -> None:
    drawn = lines(graft.LoRA(sites="q v down"))
    assert [drawn[3][at] for at, sign in enumerate(drawn[5]) if sign == "◆"] == ["q", "v", "w"]
    assert drawn[-2] == "  ◆ changes parameters, and can merge  (params)"
    assert max(map(len, drawn)) <= 80


def test_wide_sites_have_a_bar_and_say_in_how_many_layers() -> None:
    assert lines(graft.LLaMAAdapter(layers=30))[5].strip() == "▲ 30 of 32 layers ▲"
    assert lines(graft.Pfeiffer(sites="ffn @ top 4"))[5].strip() == "●━ 4 of 32 ━●"
    assert "2 of 32 layers" in lines(graft.TopLayers(k=2))[0]


def test_what_covers_the_same_sites_has_a_row_of_its_own() -> None:
    drawn = lines(graft.LoRA() + graft.LadderSide())
    assert drawn[5].strip().startswith("●━") and drawn[6].split() == ["◆", "◆"]
    assert [line.split()[0] for line in drawn[8:10]] == ["◆", "●"]


@pytest.mark.parametrize("method", [graft.LoRA(), graft.MAM(), graft.PromptTuning(), graft.TopLayers(k="all")])
def test_svg_lights_what_the_terminal_lights(method: graft.Method) -> None:
    found = marked(method)
    text = svg(found, "a title")
    root = ElementTree.fromstring(text)
    left, _, width, height = map(float, root.attrib["viewBox"].split())
    for node in root.iter():
        for side, first, size in (("x", left, width), ("cx", left, width), ("y", 0, height), ("cy", 0, height)):
            assert first <= float(node.get(side, first)) <= first + size
    lit = {mark.kind for mark in found}
    for kind in ("params", "passing", "keys", "tokens", "place"):
        used = sum(COLORS["light"][kind] in node.attrib.values() for node in root.iter())
        assert bool(used) == (kind in lit)
    assert len(text.encode()) < 10_000 and all(color in text for color in COLORS["dark"].values())
