"""The picture of the README: a transformer block with its sites, and under it where each method acts by default.

Nothing in the lower half is drawn by hand. Every method is attached to a model of the size of Llama 7B, without
weights, and asked where its parts are, which verbs they have and how many numbers they train.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import graft
from graft import catalogue
from graft.anatomy import skeleton
from graft.attach import Adapter

WIDTH, LEFT, RIGHT, TOP, ROW = 1000, 150, 112, 196, 30
NODE, SPAN = 24, 29  # half the width of a node, and what a span reaches beyond the middle of its columns
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "Inter, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
# What a site is called in the drawing, and which norm it is where there are several.
COLUMNS = (
    ("embed", ""), ("norm", "input_layernorm"), ("q", ""), ("k", ""), ("v", ""), ("o", ""),
    ("norm", "post_attention_layernorm"), ("gate", ""), ("up", ""), ("down", ""), ("norm", "norm"), ("head", ""),
)  # fmt: skip
SPANS = {"attention": (2, 5), "ffn": (7, 9), "layer": (1, 9), "stack": (10, 10)}
# What a part does, by the most telling of its verbs; the color says it.
KINDS = (
    ("params", ("params",), "changes parameters, and can merge"),
    ("passing", ("before", "after"), "changes what passes"),
    ("keys", ("keys_values",), "adds keys and values"),
    ("tokens", ("tokens",), "adds tokens"),
    ("place", (), "trains the base itself"),
)
COLORS = {
    "light": {
        "text": "#1f2328", "faint": "#6e7781", "line": "#afb8c1", "guide": "#e3e7eb", "box": "#ffffff",
        "panel": "#f6f8fa", "params": "#1a7f5a", "passing": "#2563c9", "keys": "#8b48c7", "tokens": "#c2417f",
        "place": "#8c6a14",
    },
    "dark": {
        "text": "#e6edf3", "faint": "#8d96a0", "line": "#545d68", "guide": "#262c33", "box": "#161b22",
        "panel": "#12171d", "params": "#3fb984", "passing": "#5c9dff", "keys": "#b787f5", "tokens": "#f27bb0",
        "place": "#d9ae4a",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """Something a method does: from one column to another, how, and in how many layers where not in all."""

    first: int
    last: int
    kind: str
    layers: str = ""


@dataclass(frozen=True)
class Line:
    """One method: its name, its marks, and how many numbers it trains."""

    name: str
    marks: tuple[Mark, ...]
    trainable: int


def picture(theme: str) -> str:
    """The drawing as SVG, for a "light" or a "dark" page."""
    lines = _lines()
    height = TOP + len(lines) * ROW + 58
    color = COLORS[theme]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{SANS}" font-size="13" role="img" aria-labelledby="title">',
        '<title id="title">A transformer block with its sites, and where each method of graft acts</title>',
        _guides(color, lines),
        _block(color),
    ]
    parts += [_row(color, line, TOP + ROW * (number + 0.5)) for number, line in enumerate(lines)]
    parts += [_legend(color, height - 26), "</svg>\n"]
    return "\n".join(parts)


def _x(column: float) -> float:
    """The middle of a column."""
    return LEFT + (WIDTH - LEFT - RIGHT) / len(COLUMNS) * (column + 0.5)


@cache
def _lines() -> tuple[Line, ...]:
    """Every method, those that act alike next to each other."""
    from transformers import LlamaConfig

    model = skeleton(
        LlamaConfig(vocab_size=32000, hidden_size=4096, num_hidden_layers=32, intermediate_size=11008,
                    num_attention_heads=32, architectures=["LlamaForCausalLM"])
    )  # fmt: skip
    lines = []
    for entry in catalogue.methods().values():
        adapter = graft.attach(model, getattr(graft, entry.class_name)())
        lines.append(Line(entry.class_name, _marks(adapter), adapter.counts.trainable))
        graft.detach(model)
    kinds = [name for name, _, _ in KINDS]
    return tuple(sorted(lines, key=lambda line: (kinds.index(line.marks[0].kind), line.marks[0].first, line.name)))


def _marks(adapter: Adapter) -> tuple[Mark, ...]:
    seen: dict[tuple[int, int, str], set[Any]] = {}
    for placed in adapter.placed:
        if placed.site is None:
            continue
        verbs = placed.part.verbs()
        kind = next(name for name, own, _ in KINDS if verbs & set(own))
        if placed.site.role in SPANS:
            first, last = SPANS[placed.site.role]
        else:
            which = placed.site.path.rpartition(".")[2] if placed.site.role == "norm" else ""
            first = last = COLUMNS.index((placed.site.role, which))
        seen.setdefault((first, last, kind), set()).add(placed.site.layer)
    if adapter.trained:
        layers = {path.split(".")[2] for path in adapter.trained}
        seen[(*SPANS["layer"], "place")] = layers
    marks = []
    for (first, last, kind), layers in sorted(seen.items()):
        few = last > first and len(layers) < 32
        marks.append(Mark(first, last, kind, f"{len(layers)} of 32 layers" if few else ""))
    return tuple(sorted(marks, key=lambda mark: (mark.first == mark.last, mark.first)))


def _block(color: dict[str, str]) -> str:
    """The upper half: the residual stream, what reads it and what adds to it."""
    stream, y, up = 44, 112, 13
    parts = []
    left, right = _x(0.5), _x(9.5)
    parts.append(_rect(left, 18, right - left, TOP - 40, color["panel"], color["guide"], 14))
    parts.append(_text((left + right) / 2, 12, "one of L layers", color["faint"], 11.5))
    for name in ("attention", "ffn"):
        first, last = SPANS[name]
        x, width = _x(first) - SPAN, _x(last) - _x(first) + 2 * SPAN
        parts.append(_rect(x, y - 30, width, 68, "none", color["line"], 10, dash=True))
        parts.append(_text(_x((first + last) / 2), y + 55, name, color["text"], 12, mono=True))
    parts.append(_path(f"M {_x(0)} {y - up} V {stream + 8} Q {_x(0)} {stream} {_x(0) + 8} {stream} H {_x(10) - 8} "
                       f"Q {_x(10)} {stream} {_x(10)} {stream + 8}", color["line"], 2))  # fmt: skip
    parts.append(_path(f"M {_x(10)} {stream + 8} V {y - up}", color["line"], 2, arrow=True))
    for norm, last in ((1, 5), (6, 9)):
        parts.append(_path(f"M {_x(norm)} {stream} V {y - up}", color["line"], 1.5, arrow=True))
        parts.append(_path(f"M {_x(norm) + NODE} {y} H {_x(norm + 1) - SPAN}", color["line"], 1.5, arrow=True))
        low = y + up + 12
        parts.append(_path(f"M {_x(norm + 1)} {y + up} V {low} H {_x(last)}", color["line"], 1.5))
        parts += [_path(f"M {_x(n)} {y + up} V {low}", color["line"], 1.5) for n in range(norm + 2, last)]
        parts.append(_path(f"M {_x(last)} {low} V {y + up}", color["line"], 1.5, arrow=True))
        x = _x(last)
        parts.append(_path(f"M {x} {y - up} V {stream + 9}", color["line"], 1.5))
        parts.append(f'<circle cx="{x:g}" cy="{stream}" r="8" fill="{color["box"]}" stroke="{color["line"]}"/>')
        parts.append(_path(f"M {x - 4} {stream} H {x + 4} M {x} {stream - 4} V {stream + 4}", color["text"], 1.3))
    parts.append(_path(f"M {_x(10) + NODE} {y} H {_x(11) - NODE}", color["line"], 1.5, arrow=True))
    for number, (role, _) in enumerate(COLUMNS):
        parts.append(_rect(_x(number) - NODE, y - up, 2 * NODE, 2 * up, color["box"], color["line"], 6))
        parts.append(_text(_x(number), y + 4.5, role, color["text"], 12.5, mono=True))
    return "\n".join(parts)


def _guides(color: dict[str, str], lines: tuple[Line, ...]) -> str:
    bottom = TOP + ROW * len(lines)
    parts = [_path(f"M {_x(n)} {TOP - 12} V {bottom}", color["guide"], 1) for n in range(len(COLUMNS))]
    parts += [_text(WIDTH - 8, TOP - 26, "trainable parameters", color["faint"], 11, anchor="end")]
    parts += [_text(WIDTH - 8, TOP - 12, "on a Llama of 7B", color["faint"], 11, anchor="end")]
    return "\n".join(parts)


def _row(color: dict[str, str], line: Line, y: float) -> str:
    parts = [_text(8, y + 4.5, line.name, color["text"], 13, anchor="start")]
    for mark in line.marks:
        fill = color[mark.kind]
        if mark.first == mark.last:
            parts.append(f'<circle cx="{_x(mark.first):g}" cy="{y:g}" r="6.5" fill="{fill}"/>')
        else:
            width = _x(mark.last) - _x(mark.first) + 2 * SPAN
            parts.append(_rect(_x(mark.first) - SPAN, y - 6.5, width, 13, fill, "none", 6.5))
        if mark.layers:
            parts.append(_text(_x((mark.first + mark.last) / 2), y + 3.6, mark.layers, color["box"], 10, weight=600))
    parts.append(_text(WIDTH - 8, y + 4.5, f"{line.trainable:,}", color["text"], 12, anchor="end", mono=True))
    return "\n".join(parts)


def _legend(color: dict[str, str], y: float) -> str:
    x, parts = 8.0, []
    for name, verbs, words in KINDS:
        parts.append(f'<circle cx="{x + 6:g}" cy="{y - 4:g}" r="6" fill="{color[name]}"/>')
        parts.append(_text(x + 18, y, words, color["text"], 11.5, anchor="start"))
        said = " ".join(verbs)
        parts.append(_text(x + 18, y + 15, said, color["faint"], 10.5, anchor="start", mono=True))
        x += 30 + 6.1 * max(len(words), len(said)) + 12
    return "\n".join(parts)


def _rect(
    x: float, y: float, width: float, height: float, fill: str, stroke: str, radius: float, dash: bool = False
) -> str:
    dashed = ' stroke-dasharray="3 3"' if dash else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{fill}" '
        f'stroke="{stroke}"{dashed}/>'
    )


def _path(d: str, stroke: str, width: float, arrow: bool = False) -> str:
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


def _text(
    x: float, y: float, text: str, fill: str, size: float, anchor: str = "middle", mono: bool = False, weight: int = 400
) -> str:
    family = f' font-family="{MONO}"' if mono else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size:g}" text-anchor="{anchor}" '
        f'font-weight="{weight}"{family}>{text}</text>'
    )
