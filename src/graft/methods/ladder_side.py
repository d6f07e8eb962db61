"""Ladder side-tuning (Sung et al. 2022, arXiv 2206.06522): a narrow transformer beside the frozen one.

    h⁰ = D₀(emb),   h ← μ_i h + (1 − μ_i) D_i(b_i),  h ← Block_i(h),  μ_i = σ(a_i / T),   y′ = y + U(norm(h))

D_i maps a backbone block's output b_i, cut off from its graph, to width d/ρ; U maps back. Nothing back-propagates into
the base, so training keeps none of its activations. A side block is a T5 block of width d/ρ: RMS norms, attention with
the backbone's number of heads and its own relative bias, a ReLU network of four widths; in a decoder with
cross-attention it attends the side encoder. Its keys and values are further layers of the model's cache. Side blocks
`drop` are left out, 0, 4 and 8 as for the paper's T5-base, where a stack has them.

Its matrices begin as the base's, structurally pruned: d/ρ dimensions of the residual stream, the same in all blocks,
and in each block dimensions of its heads and neurons of its FFN, those whose weights matter most in sum. What matters
is |w| or, as in the paper, F = mean over training rows of g²; D_i begins as the choice of these dimensions.

Departures: the side network corrects the stack's output instead of replacing it, and U starts at zero, so that a
language model begins as itself. |w| is the default, because F takes a backward through the whole base, once, when
training starts. Norms begin at 1. In the paper D_i begins at random.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.gradients import derivatives, differentiable
from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, check, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

BUCKETS, FARTHEST, TEMPERATURE, EXPANSION = 32, 128, 0.1, 4
INPUT = "input"
DROPPED = (0, 4, 8)
Scores = Mapping[str, tuple[Tensor, Tensor]]  # by the name of a site: how much each output and each input matters


class Rung(Part):
    """Lets the side network see what enters and what leaves one block of the base, without its graph."""

    listens = True

    def __init__(self, first: bool, kept: bool) -> None:
        super().__init__()
        self.first, self.kept = first, kept

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        if self.first and not call.recorded(INPUT):
            call.record(INPUT, x.detach())
        if self.kept:
            call.record("rungs", y.detach())
        return y


class Ladder(Part):
    """The side network of one stack: all of its tensors, and the whole climb at the stack's output."""

    def __init__(self, outer: int, width: int, heads: int, rungs: int, cross: bool, last: bool) -> None:
        super().__init__()
        self.outer, self.width, self.heads, self.rungs, self.cross, self.last = outer, width, heads, rungs, cross, last
        self.pick: tuple[int, ...] | None = None  # which of what was recorded, where one module runs as several layers
        self.sources: list[
            dict[str, Site]
        ] = []  # by rung: the matrices of its block, as in "self_q", "cross_o", "wide"
        self.bias = nn.Parameter(torch.randn(BUCKETS, heads) * width**-0.5)
        self.final = nn.Parameter(torch.ones(width))
        for i in range(rungs + 1):
            self.register_parameter(f"down_{i}", kaiming(width, outer))
            self.register_parameter(f"down_bias_{i}", zeros(width))
        for i in range(rungs):
            self.register_parameter(f"gate_{i}", zeros(1))
            for kind in ("self", "cross") if cross else ("self",):
                self.register_parameter(f"{kind}_norm_{i}", nn.Parameter(torch.ones(width)))
                for name in "qkvo":
                    self.register_parameter(f"{kind}_{name}_{i}", kaiming(width, width))
            self.register_parameter(f"ffn_norm_{i}", nn.Parameter(torch.ones(width)))
            self.register_parameter(f"wide_{i}", kaiming(EXPANSION * width, width))
            self.register_parameter(f"narrow_{i}", kaiming(width, EXPANSION * width))
        if last:
            self.up, self.up_bias = zeros(outer, width), zeros(outer)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        rungs = call.recorded("rungs")
        rungs = rungs if self.pick is None else [rungs[i] for i in self.pick]
        h = self._down(0, call.recorded(INPUT)[0])
        for i, rung in enumerate(rungs):
            gate = torch.sigmoid(self.get(f"gate_{i}") / TEMPERATURE)
            h = gate * h + (1 - gate) * self._down(i + 1, rung)
            h = h + self._attend(i, h, site, call)
            if self.cross:
                h = h + self._attend_encoder(i, h, call)
            inner = F.relu(F.linear(_norm(h, self.get(f"ffn_norm_{i}")), self.get(f"wide_{i}")))
            h = h + F.linear(inner, self.get(f"narrow_{i}"))
        h = _norm(h, self.final)
        if not self.last:
            call.kept[call.own("memory")] = h
            return y
        return y + F.linear(h, self.up, self.up_bias)

    def get(self, name: str) -> Tensor:
        """A tensor by name."""
        return getattr(self, name)

    def _down(self, i: int, b: Tensor) -> Tensor:
        return F.linear(b.to(self.final.dtype), self.get(f"down_{i}"), self.get(f"down_bias_{i}"))

    def _project(self, kind: str, i: int, x: Tensor, names: str) -> list[Tensor]:
        return [F.linear(x, self.get(f"{kind}_{n}_{i}")).unflatten(-1, (self.heads, -1)).transpose(1, 2) for n in names]

    def _attend(self, i: int, h: Tensor, site: Site, call: "Call") -> Tensor:
        q, k, v = self._project("self", i, _norm(h, self.get(f"self_norm_{i}")), "qkv")
        k, v = call.extend(f"{site.name}/{i}", k, v)
        n, seen = q.shape[2], k.shape[2]
        distance = torch.arange(seen, device=h.device)[None] - torch.arange(seen - n, seen, device=h.device)[:, None]
        scores = F.embedding(_bucket(distance, call.causal), self.bias).permute(2, 0, 1)[None]
        if call.causal:
            scores = scores.masked_fill(distance > 0, float("-inf"))
        padding = call.padding(n)
        if padding is not None:
            hidden = ~padding[:, None, None, :seen] & (distance != 0)
            scores = scores.masked_fill(hidden, float("-inf"))
        apart = call.apart()
        if apart is not None:
            scores = scores.masked_fill(apart.to(scores.device), float("-inf"))
        mixed = (q @ k.transpose(-1, -2) + scores).softmax(-1) @ v
        return F.linear(mixed.transpose(1, 2).flatten(2), self.get(f"self_o_{i}"))

    def _attend_encoder(self, i: int, h: Tensor, call: "Call") -> Tensor:
        memory = call.kept[call.own("memory")].to(h.dtype)
        memory = memory.repeat_interleave(len(h) // len(memory), 0)
        (q,) = self._project("cross", i, _norm(h, self.get(f"cross_norm_{i}")), "q")
        k, v = self._project("cross", i, memory, "kv")
        scores = q @ k.transpose(-1, -2)
        if call.memory_mask is not None:
            scores = scores.masked_fill(~call.memory_mask[:, None, None].bool(), float("-inf"))
        return F.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), self.get(f"cross_o_{i}"))


@dataclass(frozen=True)
class LadderSide(Method):
    """A narrow side network fed by every block of the frozen base; training never back-propagates into the base."""

    reduction: Annotated[int, "the side network is this many times narrower"] = 8
    drop: Annotated[tuple[int, ...], "side blocks that are left out, in each stack that has them"] = DROPPED
    init: Annotated[Literal["random", "pruned", "fisher"], "begin at random, or as the base pruned by |w| or by g²"] = (
        "pruned"
    )
    samples: Annotated[int, "training rows that fisher is estimated on"] = 128

    family: ClassVar[str] = "side"
    learning_rate: ClassVar[float] = 3e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "reduction", "samples")
        blocks = isinstance(self.drop, tuple) and all(type(block) is int and block >= 0 for block in self.drop)
        fine = blocks and len(set(self.drop)) == len(self.drop)
        check(fine, self, "drop", "must be different blocks, counted from 0", "Try 0 4 8.")

    def expression(self) -> str:
        return "layer stack attention" + ("" if self.init == "random" else " all-linear")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        stacks = [site for site in sites if site.role == "stack"]
        grown: list[tuple[Site | None, Part]] = []
        for stack in stacks:
            layers, kept = _layers(sites, stack), self._kept(sites, stack)
            repeated = any(site.repeats > 1 for site in layers)
            grown += [(site, Rung(index == 0, repeated or index in kept)) for index, site in enumerate(layers)]
            ladder = Ladder(*self._shape(sites, stack), _crosses(sites, stack), stack is stacks[-1])
            ladder.pick = tuple(kept) if repeated else None
            ladder.sources = [_sources(sites, layers[0 if repeated else index]) for index in kept]
            grown.append((stack, ladder))
        if self.init != "random":
            ladders = [part for _, part in grown if isinstance(part, Ladder)]
            if not ladders[0].final.is_meta:
                matrices = _matrices(ladders)
                _prune(ladders, {site.name: _sums(site.weight.detach().abs().float()) for site in matrices})
        return grown

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        ladders = [part for part in parts if isinstance(part, Ladder)]
        if self.init != "fisher" or ladders[-1].up.any():  # which is zero until it trains
            return
        sites = _matrices(ladders)
        scores = {site.name: _sums(torch.zeros(site.weight.shape, device=site.weight.device)) for site in sites}
        with differentiable(model, sites, training=False):
            for row in islice(_rows(batches), self.samples):
                for site, gradient in zip(sites, derivatives(model(**row).loss, sites), strict=True):
                    for total, more in zip(scores[site.name], _sums(gradient.square()), strict=True):
                        total += more
        _prune(ladders, scores)

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        said = []
        if self.init == "fisher":
            said.append("side weights are pruned on training rows, when training starts; until then, by size")
        if self.init != "random":
            blocks = [_sources(sites, layer) for layer in sites if layer.role == "layer"]
            if bare := sum("wide" not in found or "self_q" not in found for found in blocks):
                said.append(f"{bare} side blocks begin at random in part: the base has no such matrices to prune there")
        return tuple(said)

    def _kept(self, sites: Sequence[Site], stack: Site) -> list[int]:
        """The blocks that have one beside them."""
        depth = sum(site.repeats for site in _layers(sites, stack))
        if self.drop != DROPPED and max(self.drop, default=0) >= max(_depths(sites)):
            raise BadInput(f"LadderSide: drop={self.drop}, and the last block is {max(_depths(sites)) - 1}.")
        kept = [index for index in range(depth) if index not in self.drop]
        if not kept:
            raise BadInput(f"LadderSide: drop={self.drop} leaves no side block in the {stack.stack}. Try drop=().")
        return kept

    def _shape(self, sites: Sequence[Site], stack: Site) -> tuple[int, int, int, int]:
        """Outer width, side width, heads, rungs."""
        width = stack.outputs // self.reduction
        if width < 1 or stack.outputs % self.reduction:
            raise BadInput(
                f"LadderSide: reduction {self.reduction} does not divide the width {stack.outputs}. Try 2 or 4."
            )
        heads = next(s.heads.query for s in sites if s.role == "attention" and s.stack == stack.stack and s.heads)
        return stack.outputs, width, math.gcd(heads, width), len(self._kept(sites, stack))

    def sizes(self) -> tuple[str, ...]:
        return ("reduction",)

    def count(self, sites: Sequence[Site]) -> int:
        stacks, total = [site for site in sites if site.role == "stack"], 0
        for stack in stacks:
            d, w, heads, rungs = self._shape(sites, stack)
            attention = 4 * w * w + w
            block = attention * (2 if _crosses(sites, stack) else 1) + 2 * EXPANSION * w * w + w + 1
            total += rungs * block + (rungs + 1) * (d * w + w) + w + BUCKETS * heads
        return total + stacks[-1].outputs * self._shape(sites, stacks[-1])[1] + stacks[-1].outputs


def _layers(sites: Sequence[Site], stack: Site) -> list[Site]:
    return [site for site in sites if site.role == "layer" and site.stack == stack.stack]


def _depths(sites: Sequence[Site]) -> list[int]:
    stacks = [site for site in sites if site.role == "stack"]
    return [sum(layer.repeats for layer in _layers(sites, stack)) for stack in stacks]


def _sources(sites: Sequence[Site], layer: Site) -> dict[str, Site]:
    """The matrices of one block of the base by what is made of them; without those that it has none or several of."""
    own = [site for site in sites if site.stack == layer.stack and site.layer == layer.layer]
    found: dict[str, Site] = {}
    for kind in ("self", "cross"):
        attention = [site for site in own if site.role == "attention" and site.cross == (kind == "cross")]
        roles = {n: [s for s in own if s.role == n and s.cross == (kind == "cross")] for n in "qkvo"}
        if len(attention) == 1 and attention[0].heads and all(_one(each) for each in roles.values()):
            query, key, width = (getattr(attention[0].heads, name) for name in ("query", "key", "width"))
            shapes = [roles[n][0].outputs for n in "qkv"] + [roles["o"][0].inputs]
            if shapes == [query * width, key * width, key * width, query * width]:
                found |= {f"{kind}_{n}": roles[n][0] for n in "qkvo"} | {kind: attention[0]}
    gate, up, down = ([site for site in own if site.role == role] for role in ("gate", "up", "down"))
    wide = gate or up
    if _one(wide) and _one(down) and wide[0].outputs == down[0].inputs:
        found |= {"wide": wide[0], "narrow": down[0]}
    return found


def _one(sites: Sequence[Site]) -> bool:
    return len(sites) == 1 and sites[0].weight.dim() == 2 and sites[0].weight.is_floating_point()


def _matrices(ladders: Sequence[Ladder]) -> list[Site]:
    """Every matrix of the base that side blocks are made of, once."""
    found = {s.name: s for ladder in ladders for block in ladder.sources for s in block.values()}
    return [site for site in found.values() if site.role != "attention"]


def _sums(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """By output and by input."""
    return matrix.sum(1), matrix.sum(0)


def _rows(batches: Iterable[Mapping[str, Tensor]]) -> Iterable[dict[str, Tensor]]:
    """Each row as a batch of its own."""
    for batch in batches:
        for index in range(len(next(iter(batch.values())))):
            yield {name: tensor[index : index + 1] for name, tensor in batch.items()}


@torch.no_grad()
def _prune(ladders: Sequence[Ladder], scores: Scores) -> None:
    """Have side blocks begin as what matters most of the base's."""
    scores = {name: (outputs.cpu(), inputs.cpu()) for name, (outputs, inputs) in scores.items()}  # layers may be apart
    streams = {id(ladder): _stream(ladder, scores) for ladder in ladders}
    if len({ladder.outer for ladder in ladders}) == 1:
        streams = dict.fromkeys(
            streams, torch.stack(list(streams.values())).sum(0)
        )  # a decoder reads what its encoder leaves
    dims = {key: _top(total, 1, ladder.width) for (key, total), ladder in zip(streams.items(), ladders, strict=True)}
    memory = dims[id(ladders[0])]
    for ladder in ladders:
        own = dims[id(ladder)]
        for i in range(ladder.rungs + 1):
            ladder.get(f"down_{i}").copy_(F.one_hot(own, ladder.outer))
        for i, block in enumerate(ladder.sources):
            for kind in ("self", "cross"):
                if kind in block:
                    _attention(ladder, i, kind, block, scores, own, own if kind == "self" else memory)
            if "wide" in block and block["wide"].outputs >= EXPANSION * ladder.width:
                wide, narrow = block["wide"], block["narrow"]
                at = _top(scores[wide.name][0] + scores[narrow.name][1], 1, EXPANSION * ladder.width)
                ladder.get(f"wide_{i}").copy_(wide.weight[at][:, own])
                ladder.get(f"narrow_{i}").copy_(narrow.weight[own][:, at])


def _attention(
    ladder: Ladder, i: int, kind: str, block: Mapping[str, Site], scores: Scores, own: Tensor, memory: Tensor
) -> None:
    """One attention of a side block, whose heads are the base's, or groups of them, with fewer dimensions."""
    site, (q, k, v, o) = block[kind], (block[f"{kind}_{n}"] for n in "qkvo")
    assert site.heads is not None
    if q.outputs < ladder.width or q.outputs % ladder.heads:
        return
    each = torch.arange(k.outputs, device="cpu").view(site.heads.key, 1, -1)
    each = each.expand(-1, site.heads.query // site.heads.key, -1).flatten()  # the key of each query
    asked = _top(scores[q.name][0] + scores[k.name][0][each], ladder.heads, ladder.width)
    given = _top(scores[v.name][0][each] + scores[o.name][1], ladder.heads, ladder.width)
    scaling = vars(site.module).get("scaling", site.heads.width**-0.5)  # the side's own logits are not scaled
    ladder.get(f"{kind}_q_{i}").copy_(q.weight[asked][:, own] * scaling)
    ladder.get(f"{kind}_k_{i}").copy_(k.weight[each[asked]][:, memory])
    ladder.get(f"{kind}_v_{i}").copy_(v.weight[each[given]][:, memory])
    ladder.get(f"{kind}_o_{i}").copy_(o.weight[own][:, given])


def _stream(ladder: Ladder, scores: Scores) -> Tensor:
    """How much each dimension of the residual stream matters to all blocks beside which there is one."""
    total = torch.zeros(ladder.outer, device="cpu")
    for block in ladder.sources:
        for name, site in block.items():
            if site.role != "attention" and not (site.cross and site.role in "kv"):
                total += scores[site.name][0 if name.endswith("_o") or name == "narrow" else 1]
    return total


def _top(scores: Tensor, groups: int, many: int) -> Tensor:
    """The places of the `many` highest scores, as many from each of so many equal groups, in order."""
    found = scores.view(groups, -1).topk(many // groups).indices.sort().values
    return (found + torch.arange(groups, device="cpu")[:, None] * (len(scores) // groups)).flatten()


def _crosses(sites: Sequence[Site], stack: Site) -> bool:
    return any(site.cross and site.stack == stack.stack for site in sites)


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.rms_norm(x, gain.shape, gain.to(x.dtype), eps=1e-6)  # autocast leaves x in half precision


def _bucket(distance: Tensor, causal: bool) -> Tensor:
    """T5's buckets of key position minus query position: exact when near, logarithmic when far."""
    buckets, offset = BUCKETS, torch.zeros_like(distance)
    if causal:
        distance = (-distance).clamp(min=0)
    else:
        buckets //= 2
        offset, distance = (distance > 0) * buckets, distance.abs()
    exact = buckets // 2
    far = exact + (distance.clamp(min=1) / exact).log() / math.log(FARTHEST / exact) * (buckets - exact)
    return offset + torch.where(distance < exact, distance, far.long().clamp(max=buckets - 1))
