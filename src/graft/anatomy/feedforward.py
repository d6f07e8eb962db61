"""Finding feed-forward blocks: linears by name outside any attention, fused projections, and experts."""

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn

from graft.anatomy.names import EXPERTS, FEED_FORWARD, FUSED_FEED_FORWARD
from graft.anatomy.site import Rows
from graft.anatomy.survey import Leaf, Survey, inside, meeting, parent, relative


@dataclass(frozen=True)
class Projection:
    """One role of a feed-forward: the module and parameter it lives in, its sizes and its share."""

    path: str
    inputs: int
    outputs: int
    rows: Rows | None = None
    transposed: bool = False
    parameter: str = "weight"
    bias: str = "bias"
    batch: tuple[int, ...] = ()


@dataclass
class FeedForward:
    """One feed-forward block. `anchor` is the module its names are relative to; `experts` the module of all experts."""

    anchor: str
    projections: dict[str, Projection] = field(default_factory=dict)
    experts: str | None = None

    @property
    def entry(self) -> str | None:
        """The module whose input enters: the first linear in the order of the computation, or the routed block."""
        if self.experts is not None:
            return self.anchor
        first = self.projections.get("gate") or self.projections.get("up")
        return first.path if first else None

    @property
    def exit(self) -> str | None:
        """The module whose output leaves: the last linear, or the routed block."""
        if self.experts is not None:
            return self.anchor
        return self.projections["down"].path if "down" in self.projections else None

    @property
    def path(self) -> str:
        """The smallest module that holds entry and exit."""
        return meeting(self.entry or self.anchor, self.exit or self.anchor)


def feed_forwards(survey: Survey, layer: str, taken: Collection[str]) -> list[FeedForward]:
    """The feed-forward blocks of a layer, those with fused experts first. `taken` are paths attention owns."""
    blocks: dict[str, FeedForward] = {}
    for path in (layer, *survey.under(layer)):
        if fused := _fused_experts(survey, path):
            block = path if path == layer or parent(path) == layer else parent(path)
            blocks[path] = FeedForward(block, fused, experts=path)
    for each in survey.leaves_under(layer, "linear"):
        if any(inside(each.path, path) for path in taken):
            continue
        suffix, roles = _roles(relative(each.path, layer), survey, each)
        if roles:
            anchor = each.path.removesuffix(suffix).removesuffix(".")
            blocks.setdefault(anchor, FeedForward(anchor)).projections.update(_split(each, roles))
    return _listed_experts(survey, layer, blocks) + list(blocks.values())


def _listed_experts(survey: Survey, layer: str, anchors: Collection[str]) -> list[FeedForward]:
    """Routed blocks whose experts are modules of their own in a list: the block is what holds the list."""
    lists = (path for path in survey.under(layer) if isinstance(survey.modules[path], nn.ModuleList))
    holding = (path for path in lists if any(parent(anchor) == path for anchor in anchors))
    return [FeedForward(parent(path), experts=path) for path in holding if parent(path) != layer]


def _roles(path: str, survey: Survey, each: Leaf) -> tuple[str, tuple[str, ...]]:
    """The suffix of `path` that the table knows and the roles it names; ("", ()) where it knows none."""
    parts = path.split(".")
    for length in (2, 1):
        suffix = ".".join(parts[-length:])
        if len(parts) >= length and suffix in FUSED_FEED_FORWARD:
            return suffix, FUSED_FEED_FORWARD[suffix].order
        if len(parts) >= length and suffix in FEED_FORWARD:
            # w1 and w2 without w3: no gate, the first linear is the only one.
            plain = suffix == "w1" and f"{parent(each.path)}.w3" not in survey.leaves
            return suffix, ("up",) if plain else (FEED_FORWARD[suffix],)
    return "", ()


def _split(each: Leaf, roles: tuple[str, ...]) -> dict[str, Projection]:
    if len(roles) == 1:
        return {roles[0]: Projection(each.path, each.inputs, each.outputs, transposed=each.transposed)}
    width = each.outputs // len(roles)
    return {
        role: Projection(each.path, each.inputs, width, Rows(1, len(roles), i, i + 1, width), each.transposed)
        for i, role in enumerate(roles)
    }


def _fused_experts(survey: Survey, path: str) -> dict[str, Projection]:
    """Roles of three-dimensional parameters, (experts, out, in) or transposed, gate and up in halves or interleaved."""
    module = survey.modules[path]
    stored = {name: p.shape for name, p in module._parameters.items() if p is not None and name in EXPERTS}
    stored = {name: shape for name, shape in stored.items() if len(shape) == 3}
    if not {"down_proj"} < stored.keys():
        return {}
    transposed = _transposed(module, stored)
    halves = vars(module).get("is_concatenated", True)
    found = {}
    for name, shape in stored.items():
        experts, outputs, inputs = (shape[0], shape[2], shape[1]) if transposed else shape
        roles, size = EXPERTS[name], outputs // len(EXPERTS[name])
        for i, role in enumerate(roles):
            rows = Rows(1, len(roles), i, i + 1, size) if halves else Rows(size, len(roles), i, i + 1, 1)
            found[role] = Projection(
                path, inputs, size, rows if len(roles) > 1 else None, transposed, name, f"{name}_bias", (experts,)
            )  # fmt: skip
    return found


def _transposed(module: nn.Module, stored: dict[str, tuple[int, ...]]) -> bool:
    """Whether the experts' weights are (experts, in, out): the module says so, or the shapes do.

    The last axis of `down_proj` is the hidden width only when transposed, and that of the other one otherwise; the
    two agree on the hidden width in exactly one reading, or in both with the feed-forward as wide as the model.
    """
    if (said := vars(module).get("is_transposed")) is not None:
        return bool(said)
    down = stored["down_proj"]
    name, other = next((name, shape) for name, shape in stored.items() if name != "down_proj")
    straight = (down[1], down[2] * len(EXPERTS[name])) == (other[2], other[1])
    return not straight
