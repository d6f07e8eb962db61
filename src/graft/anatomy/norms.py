"""Which norm belongs to which sub-layer of a layer, and on which side of the residual it stands."""

from dataclasses import dataclass
from typing import Literal

from graft.anatomy.names import (
    FEED_FORWARD_NORMS,
    NORM_AFTER_RESIDUAL,
    NORM_BEFORE,
    NORM_FIRST_FIELDS,
    NORM_OF,
    NORM_ON_OUTPUT,
    PLAIN_NORMS,
)
from graft.anatomy.survey import Survey, inside, join, parent, relative

# Before the feed-forward in most architectures; on the attention's output where the feed-forward has norms of its own.
SHARED_NAME = "post_attention_layernorm"

SubLayer = Literal["attention", "cross", "ffn"]
Side = Literal["before", "branch", "after"]


@dataclass(frozen=True)
class Surroundings:
    """What stands around a sub-layer: the module whose input is the residual stream, and the norm after the sum."""

    residual: str | None
    norm: str | None


def norm_first(survey: Survey, stack: str, trunk: str) -> bool:
    """Whether a stack norms before its sub-layers: its configuration says so, or it ends in a norm of its own."""
    config = survey.config(trunk)
    for name in NORM_FIRST_FIELDS:
        if (said := getattr(config, name, None)) is not None:
            return bool(said)
    own = (path for path in survey.modules if parent(path) in (stack, trunk) and path not in (stack, trunk))
    ends = (path.rpartition(".")[2] for path in own if (leaf := survey.leaves.get(path)) and leaf.kind == "norm")
    return any("emb" not in name and not name.startswith("pre") for name in ends)


def surroundings(
    survey: Survey,
    layer: str,
    kind: SubLayer,
    within: str,
    entry: str,
    exit: str,
    first: bool,
) -> Surroundings:
    """The residual and norm around the sub-layer of `layer` that stands in `within` and runs from `entry` to `exit`.

    Norms on the branch (Gemma 2 and 3, OLMo 2: after the sub-layer, before the sum) are neither: the norm is None,
    and with no norm before it the sub-layer's entry takes the residual stream itself.
    """
    sides = {path: _side(survey, layer, path, first) for path in _owned(survey, layer, kind, within, entry, exit)}
    if not sides and kind == "ffn":
        # Attention and feed-forward side by side behind one norm (Falcon, Cohere, GPT-J).
        sides = {path: _side(survey, layer, path, first) for path in _named(survey, layer, "attention")}
        sides = {path: side for path, side in sides.items() if side == "before"}
    by_side = {side: path for path, side in reversed(sides.items())}
    if "before" in by_side:
        return Surroundings(by_side["before"], None)
    if sides:
        return Surroundings(entry, by_side.get("after"))
    return Surroundings(None, None)


def _named(survey: Survey, layer: str, kind: str) -> list[str]:
    """Norms that are the layer's own children, by the table. A norm left out of one layer is an Identity there."""
    names = list(NORM_OF[kind])
    if kind == "ffn" and _on_output(survey, layer, SHARED_NAME):
        names.remove(SHARED_NAME)
    elif kind == "attention" and _on_output(survey, layer, SHARED_NAME):
        names.append(SHARED_NAME)
    paths = (join(layer, name) for name in names)
    return [path for path in paths if path in survey.modules]


def _on_output(survey: Survey, layer: str, name: str) -> bool:
    """Whether a norm stands on a sub-layer's output: by its name, or by the norms beside it."""

    def has(*others: str) -> bool:
        return any(join(layer, other) in survey.modules for other in others)

    if name == SHARED_NAME:
        # With a norm on the feed-forward's output and none before the attention (GTE), it is on the attention's.
        return has(*FEED_FORWARD_NORMS) or (has("post_mlp_layernorm") and not has("input_layernorm"))
    return name in NORM_ON_OUTPUT


def _owned(survey: Survey, layer: str, kind: str, within: str, entry: str, exit: str) -> list[str]:
    """Norms named for the sub-layer, then those with a plain name beside its ends or above it inside the layer."""
    found = _named(survey, layer, kind)
    for each in survey.leaves_under(layer, "norm"):
        home = parent(each.path)
        beside = home in (parent(entry), parent(exit)) or inside(within, home)
        if home != layer and beside and each.path.rpartition(".")[2] in PLAIN_NORMS:
            found.append(each.path)
    return found


def _side(survey: Survey, layer: str, path: str, first: bool) -> Side:
    name = path.rpartition(".")[2]
    if _on_output(survey, layer, name):
        return "branch" if first else "after"
    if name in NORM_BEFORE:
        return "before"
    if name in NORM_AFTER_RESIDUAL or relative(path, layer).endswith(NORM_AFTER_RESIDUAL):
        return "after"
    return "before" if first else "after"
