"""The block in characters, with a sign under every site that a method touches, for terminals with and without color."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graft.drawing.block import BOXES, COLUMNS, KINDS, READS, SPANS, STREAM, Mark, kinds

if TYPE_CHECKING:
    from rich.text import Text

STYLES = {"params": "bold green", "passing": "bold blue", "keys": "bold magenta", "tokens": "bold red",
          "around": "bold cyan", "place": "bold yellow"}  # fmt: skip
LABEL, STREAM_AT, TOP, NODES, FOOT, SIGNS = range(6)  # the rows


def terminal(found: Sequence[Mark]) -> "Text":
    """The block with the sites of these marks lit: 73 columns wide, a legend at its end."""
    page = _Page()
    _stream(page, found)
    for name in BOXES:
        _box(page, name, next((mark for mark in found if mark.at(name)), None))
    for number, (role, _) in enumerate(COLUMNS):
        lit = next((mark for mark in found if mark.first == mark.last == number), None)
        page.write(NODES, _x(number) - len(role) // 2, role, STYLES[lit.kind] if lit else "")
    rows = _signs(page, found)
    for below, kind in enumerate(kinds(found)):
        page.write(SIGNS + rows + 1 + below, 2, kind.sign, STYLES[kind.name])
        page.write(SIGNS + rows + 1 + below, 4, f"{kind.words}  ({', '.join(kind.verbs) or 'in place'})", "dim")
    return page.text()


class _Page:
    """Characters by row and column, each with a style."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}

    def write(self, row: int, x: int, said: str, style: str = "dim") -> None:
        for at, letter in enumerate(said):
            self.cells[row, x + at] = (letter, style)

    def text(self) -> "Text":
        from rich.text import Text

        made = Text(no_wrap=True)
        for row in range(1 + max(row for row, _ in self.cells)):
            for x in range(1 + max((x for at, x in self.cells if at == row), default=-1)):
                made.append(*self.cells.get((row, x), (" ", "")))
            made.append("\n")
        return made


def _x(number: int) -> int:
    """The middle of a column."""
    return 4 + 6 * number


def _stream(page: _Page, found: Sequence[Mark]) -> None:
    """The residual stream, what reads it and what adds to it, and how many layers there are of what is below it."""
    start, end = map(_x, STREAM)
    page.write(STREAM_AT, start, "╭" + "─" * (end - start - 1) + "╮")
    page.write(TOP, start, "│")
    page.write(TOP, end, "▾")
    for norm, last in READS:
        page.write(STREAM_AT, _x(norm), "┬")
        page.write(TOP, _x(norm), "▾")
        page.write(STREAM_AT, _x(last), "⊕")
        page.write(NODES, _x(norm + 1) - 4, "▸")
    page.write(NODES, _x(STREAM[1]) + 3, "▸")
    whole = next((mark for mark in found if mark.at("layer")), None)
    first, last = SPANS["layer"]
    said = f" {whole.layers if whole and whole.layers else 'one of L layers'} "
    page.write(LABEL, _x(first) - 2, "┌" + said.center(_x(last) - _x(first) + 4, "╌") + "┐",
               STYLES[whole.kind] if whole else "dim")  # fmt: skip


def _box(page: _Page, name: str, lit: Mark | None) -> None:
    """The frame of a sub-layer, from whose last node a line goes up to the stream."""
    first, last = SPANS[name]
    left, right, style = _x(first) - 3, _x(last) + 2, STYLES[lit.kind] if lit else "dim"
    inner = right - left - 1
    page.write(TOP, left, "╭" + "─" * inner + "╮", style)
    page.write(TOP, _x(last), "┴", style)
    page.write(NODES, left, "│", style)
    page.write(NODES, right, "│", style)
    page.write(FOOT, left, "╰" + f" {name} ".center(inner, "─") + "╯", style)


def _signs(page: _Page, found: Sequence[Mark]) -> int:
    """A sign under every node, and in a bar as wide as a span; how many rows that took."""
    taken: list[set[int]] = []
    for mark in found:
        columns = set(range(mark.first, mark.last + 1))
        row = next((at for at, used in enumerate(taken) if not used & columns), len(taken))
        if row == len(taken):
            taken.append(set())
        taken[row] |= columns
        width, sign = _x(mark.last) - _x(mark.first) - 1, KINDS[mark.kind].sign
        layers = f" {mark.layers if len(mark.layers) < width - 1 else mark.layers.removesuffix(' layers')} "
        bar = f"{sign}{(layers if mark.layers else sign).center(width, '━')}{sign}"
        page.write(SIGNS + row, _x(mark.first), bar if width > 0 else sign, STYLES[mark.kind])
    return len(taken)
