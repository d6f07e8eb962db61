"""The picture of the README: a transformer block with its sites, and under it where each method acts by default.

Nothing in the lower half is drawn by hand. Every method is attached to a model of the size of Llama 7B, without
weights, and asked where its parts are, which verbs they have and how many numbers they train.
"""

from dataclasses import dataclass
from functools import cache

import graft
from graft import catalogue
from graft.anatomy import skeleton
from graft.attach import attach, detach
from graft.drawing import Mark, marks
from graft.drawing.block import COLUMNS, KINDS
from graft.drawing.svg import BOTTOM, COLORS, SPAN, WIDTH, Colors, block, column, legend, opening, path, rect, text
from graft.errors import GraftError

TOP, ROW = BOTTOM + 22, 30


@dataclass(frozen=True)
class Line:
    """One method: its name, its marks, and how many numbers it trains."""

    name: str
    marks: tuple[Mark, ...]
    trainable: int


def picture(theme: str) -> str:
    """The drawing as SVG, for a "light" or a "dark" page."""
    found = lines()
    height, color = TOP + len(found) * ROW + 58, COLORS[theme]
    every = [mark for line in found for mark in line.marks]
    parts = [
        opening(0, WIDTH, height, "A transformer block with its sites, and where each method of graft acts"),
        *_guides(color, TOP + ROW * len(found)),
        *block(color),
    ]
    for number, line in enumerate(found):
        parts += _row(color, line, TOP + ROW * (number + 0.5))
    return "\n".join([*parts, *legend(color, every, 8, height - 26), "</svg>\n"])


@cache
def lines() -> tuple[Line, ...]:
    """Every method of graft that this model can take, those that act alike next to each other."""
    from transformers import LlamaConfig

    model = skeleton(
        LlamaConfig(vocab_size=32000, hidden_size=4096, num_hidden_layers=32, intermediate_size=11008,
                    num_attention_heads=32, architectures=["LlamaForCausalLM"])
    )  # fmt: skip
    found = []
    for entry in catalogue.own().values():
        try:
            adapter = attach(model, getattr(graft, entry.class_name)())
        except GraftError:
            continue  # this model cannot take it; the reference says why
        found.append(Line(entry.class_name, marks(adapter), sum(tensor.numel() for tensor in adapter.parameters())))
        detach(model)
    kinds = list(KINDS)
    return tuple(sorted(found, key=lambda line: (kinds.index(line.marks[0].kind), line.marks[0].first, line.name)))


def _guides(color: Colors, bottom: float) -> list[str]:
    parts = [path(f"M {column(n)} {TOP - 12} V {bottom}", color["guide"], 1) for n in range(len(COLUMNS))]
    parts += [text(WIDTH - 8, TOP - 26, "trainable parameters", color["faint"], 11, anchor="end")]
    return [*parts, text(WIDTH - 8, TOP - 12, "on a Llama of 7B", color["faint"], 11, anchor="end")]


def _row(color: Colors, line: Line, y: float) -> list[str]:
    parts = [text(8, y + 4.5, line.name, color["text"], 13, anchor="start")]
    for mark in line.marks:
        fill = color[mark.kind]
        if mark.first == mark.last:
            parts.append(f'<circle cx="{column(mark.first):g}" cy="{y:g}" r="6.5" fill="{fill}"/>')
        else:
            width = column(mark.last) - column(mark.first) + 2 * SPAN
            parts.append(rect(column(mark.first) - SPAN, y - 6.5, width, 13, fill, "none", 6.5))
        if mark.layers:
            middle = column((mark.first + mark.last) / 2)
            parts.append(text(middle, y + 3.6, mark.layers, color["box"], 10, bold=True))
    return [*parts, text(WIDTH - 8, y + 4.5, f"{line.trainable:,}", color["text"], 12, mono=True, anchor="end")]
