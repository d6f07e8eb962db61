"""What is drawn: the sites of a decoder in a row, and the marks of a method, taken from its parts and their verbs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from torch import nn

from graft.anatomy import skeleton
from graft.attach import Adapter

LAYERS = 32
# What a site is called in the drawing, and which norm it is where there are several.
COLUMNS = (
    ("embed", ""), ("norm", "input_layernorm"), ("q", ""), ("k", ""), ("v", ""), ("o", ""),
    ("norm", "post_attention_layernorm"), ("gate", ""), ("up", ""), ("down", ""), ("norm", "norm"), ("head", ""),
)  # fmt: skip
# Sites that are more than one column wide, from the first to the last; a stack's output is what its norm gives.
SPANS = {"attention": (2, 5), "ffn": (7, 9), "layer": (1, 9), "stack": (10, 10)}
BOXES = ("attention", "ffn")
STREAM = (0, 10)  # the residual stream runs from the embeddings to the last norm
READS = ((1, 5), (6, 9))  # which norm reads it, and which column adds to it


@dataclass(frozen=True)
class Kind:
    """What a part does, by the most telling of its verbs; `sign` stands for it where there is no color."""

    name: str
    verbs: tuple[str, ...]
    words: str
    sign: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("params", ("params",), "changes parameters, and can merge", "◆"),
        Kind("passing", ("before", "after"), "changes what passes", "●"),
        Kind("keys", ("keys_values",), "adds keys and values", "▲"),
        Kind("tokens", ("tokens",), "adds tokens", "■"),
        Kind("around", ("around",), "runs layers in its own way", "◎"),
        Kind("place", (), "trains the base itself", "★"),
    )
}


@dataclass(frozen=True)
class Mark:
    """Something a method does: from one column to another, how, and in how many layers where not in all."""

    first: int
    last: int
    kind: str
    layers: str = ""

    def at(self, span: str) -> bool:
        """Whether it is about a site that is more than one column wide."""
        return (self.first, self.last) == SPANS[span]


@cache
def reference() -> nn.Module:
    """A small Llama with all of the sites that are drawn, without weights."""
    from transformers import LlamaConfig

    return skeleton(
        LlamaConfig(vocab_size=32000, hidden_size=256, num_hidden_layers=LAYERS, intermediate_size=512,
                    num_attention_heads=4, architectures=["LlamaForCausalLM"])
    )  # fmt: skip


def marks(adapter: Adapter) -> tuple[Mark, ...]:
    """What an adapter does to the reference, or to a larger Llama, with the widest marks first."""
    seen: dict[tuple[int, int, str], set[int | None]] = {}
    for placed in adapter.placed:
        if placed.site is None or placed.head:
            continue
        verbs = placed.part.verbs()
        kind = next(kind.name for kind in KINDS.values() if verbs & set(kind.verbs))
        if placed.site.role in SPANS:
            first, last = SPANS[placed.site.role]
        else:
            which = placed.site.path.rpartition(".")[2] if placed.site.role == "norm" else ""
            first = last = COLUMNS.index((placed.site.role, which))
        seen.setdefault((first, last, kind), set()).add(placed.site.layer)
    if adapter.trained:
        seen[(*SPANS["layer"], "place")] = {int(path.split(".")[2]) for path in adapter.trained if ".layers." in path}
    found = []
    for (first, last, kind), at in seen.items():
        few = last > first and len(at) < LAYERS
        found.append(Mark(first, last, kind, f"{len(at)} of {LAYERS} layers" if few else ""))
    return tuple(sorted(found, key=lambda mark: (mark.first == mark.last, mark.first, mark.last, mark.kind)))


def kinds(found: Sequence[Mark]) -> list[Kind]:
    """The kinds among some marks, in the usual order."""
    return [kind for kind in KINDS.values() if any(mark.kind == kind.name for mark in found)]
