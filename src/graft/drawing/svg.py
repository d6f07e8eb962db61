"""The block as SVG. In one picture for both themes: light, and dark where the reader's device asks for it."""

from collections.abc import Sequence

from graft.drawing.block import BOXES, COLUMNS, READS, SPANS, STREAM, Mark, kinds

WIDTH, LEFT, RIGHT, BOTTOM = 1000, 150, 112, 174
NODE, SPAN = 24, 29  # half the width of a node, and what a span reaches beyond the middle of its columns
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "Inter, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
Colors = dict[str, str]
COLORS: dict[str, Colors] = {
    "light": {
        "text": "#1f2328", "faint": "#6e7781", "line": "#afb8c1", "guide": "#e3e7eb", "box": "#ffffff",
        "panel": "#f6f8fa", "params": "#1a7f5a", "passing": "#2563c9", "keys": "#8b48c7", "tokens": "#c2417f",
        "around": "#0e7a8a", "place": "#8c6a14",
    },
    "dark": {
        "text": "#e6edf3", "faint": "#8d96a0", "line": "#545d68", "guide": "#262c33", "box": "#161b22",
        "panel": "#12171d", "params": "#3fb984", "passing": "#5c9dff", "keys": "#b787f5", "tokens": "#f27bb0",
        "around": "#3fb6c9", "place": "#d9ae4a",
    },
}  # fmt: skip


def svg(found: Sequence[Mark], title: str) -> str:
    """The block with the sites of these marks lit, and what their colors mean."""
    color, height, left, width = COLORS["light"], BOTTOM + 52, LEFT - 18, WIDTH - LEFT - RIGHT + 36
    darker = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}'
        for light, dark in zip(COLORS["light"].values(), COLORS["dark"].values(), strict=True)
    )
    return "\n".join(
        [
            opening(left, width, height, title),
            f"<style>@media (prefers-color-scheme:dark){{{darker}}}</style>",
            rect(left, 0, width, height, color["box"], "none", 8),
            *block(color, found),
            *legend(color, found, left + 24, height - 22),
            "</svg>\n",
        ]
    )


def opening(left: float, width: float, height: float, title: str) -> str:
    """The first lines of a picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:g} 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="{SANS}" font-size="13" role="img" '
        f'aria-labelledby="title">\n<title id="title">{title}</title>\n<style>.m{{font-family:{MONO}}}</style>'
    )


def column(number: float) -> float:
    """The middle of a column."""
    return LEFT + (WIDTH - LEFT - RIGHT) / len(COLUMNS) * (number + 0.5)


def block(color: Colors, found: Sequence[Mark] = ()) -> list[str]:
    """The residual stream, what reads it and what adds to it; what marks touch is lit."""
    stream, y, up = 44, 112, 13
    parts = []
    left, right = column(SPANS["layer"][0] - 0.5), column(SPANS["layer"][1] + 0.5)
    whole = [mark for mark in found if mark.at("layer")]
    edge = color[whole[0].kind] if whole else color["guide"]
    parts.append(rect(left, 18, right - left, BOTTOM - 18, color["panel"], edge, 14, 2.5 if whole else 1))
    named = (mark.layers for mark in whole if mark.layers)
    parts.append(text((left + right) / 2, 12, next(named, "one of L layers"), edge if whole else color["faint"], 11.5))
    for name in BOXES:
        first, last = SPANS[name]
        x, width = column(first) - SPAN, column(last) - column(first) + 2 * SPAN
        lit = next((mark for mark in found if mark.at(name)), None)
        edge = color[lit.kind] if lit else color["line"]
        parts.append(rect(x, y - 30, width, 68, "none", edge, 10, 2.5 if lit else 1, dash=not lit))
        said = f"{name}, {lit.layers}" if lit and lit.layers else name
        middle = column((first + last) / 2)
        parts.append(text(middle, y + 55, said, edge if lit else color["text"], 12, mono=True, bold=bool(lit)))
    parts += _wires(color, stream, y, up)
    for number, (role, _) in enumerate(COLUMNS):
        lit = next((mark for mark in found if mark.first == mark.last == number), None)
        fill, edge = (color[lit.kind], color[lit.kind]) if lit else (color["box"], color["line"])
        parts.append(rect(column(number) - NODE, y - up, 2 * NODE, 2 * up, fill, edge, 6))
        parts.append(text(column(number), y + 4.5, role, color["box" if lit else "text"], 12.5, True, bool(lit)))
    return parts


def _wires(color: Colors, stream: float, y: float, up: float) -> list[str]:
    """The residual stream, and what runs between it and the nodes."""
    line, (start, end) = color["line"], (column(each) for each in STREAM)
    bend = f"M {start} {y - up} V {stream + 8} Q {start} {stream} {start + 8} {stream} H {end - 8} "
    parts = [path(f"{bend}Q {end} {stream} {end} {stream + 8}", line, 2)]
    parts.append(path(f"M {end} {stream + 8} V {y - up}", line, 2, arrow=True))
    for norm, last in READS:
        low, x = y + up + 12, column(last)
        parts.append(path(f"M {column(norm)} {stream} V {y - up}", line, 1.5, arrow=True))
        parts.append(path(f"M {column(norm) + NODE} {y} H {column(norm + 1) - SPAN}", line, 1.5, arrow=True))
        parts.append(path(f"M {column(norm + 1)} {y + up} V {low} H {x}", line, 1.5))
        parts += [path(f"M {column(n)} {y + up} V {low}", line, 1.5) for n in range(norm + 2, last)]
        parts.append(path(f"M {x} {low} V {y + up}", line, 1.5, arrow=True))
        parts.append(path(f"M {x} {y - up} V {stream + 9}", line, 1.5))
        parts.append(f'<circle cx="{x:g}" cy="{stream}" r="8" fill="{color["box"]}" stroke="{line}"/>')
        parts.append(path(f"M {x - 4} {stream} H {x + 4} M {x} {stream - 4} V {stream + 4}", color["text"], 1.3))
    last = STREAM[1]
    return [*parts, path(f"M {column(last) + NODE} {y} H {column(last + 1) - NODE}", line, 1.5, arrow=True)]


def legend(color: Colors, found: Sequence[Mark], x: float, y: float) -> list[str]:
    """What the colors mean, and the verbs of a part that has them."""
    parts = []
    for kind in kinds(found):
        parts.append(f'<circle cx="{x + 6:g}" cy="{y - 4:g}" r="6" fill="{color[kind.name]}"/>')
        parts.append(text(x + 18, y, kind.words, color["text"], 11.5, anchor="start"))
        verbs = " ".join(kind.verbs)
        parts.append(text(x + 18, y + 15, verbs, color["faint"], 10.5, True, anchor="start"))
        x += 30 + 6.1 * max(len(kind.words), len(verbs)) + 12
    return parts


def rect(
    x: float, y: float, width: float, height: float, fill: str, stroke: str, radius: float, thick: float = 1,
    dash: bool = False,
) -> str:  # fmt: skip
    """A box with round corners."""
    dashed = ' stroke-dasharray="3 3"' if dash else ""
    thicker = f' stroke-width="{thick:g}"' if thick != 1 else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{fill}" '
        f'stroke="{stroke}"{thicker}{dashed}/>'
    )


def path(d: str, stroke: str, width: float, arrow: bool = False) -> str:
    """A line; with `arrow` one straight stretch, across or up and down, that ends in an arrow."""
    line = f'<path d="{d}" fill="none" stroke="{stroke}" stroke-width="{width:g}"/>'
    if not arrow:
        return line
    words = d.split()
    x, y = float(words[1]), float(words[2])
    x, y = (float(words[4]), y) if words[3] == "H" else (x, float(words[4]))
    head = f"{x - 6:g},{y - 3.5:g} {x:g},{y:g} {x - 6:g},{y + 3.5:g}"
    if words[3] == "V":
        back = y - 6 if y > float(words[2]) else y + 6
        head = f"{x - 3.5:g},{back:g} {x:g},{y:g} {x + 3.5:g},{back:g}"
    return f'{line}<polygon points="{head}" fill="{stroke}"/>'


def text(
    x: float, y: float, said: str, fill: str, size: float, mono: bool = False, bold: bool = False,
    anchor: str = "middle",
) -> str:  # fmt: skip
    """A line of text."""
    style = (' class="m"' if mono else "") + (' font-weight="600"' if bold else "")
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size:g}" text-anchor="{anchor}"{style}>{said}</text>'
