"""Ladder side-tuning (Sung et al. 2022, arXiv 2206.06522): a narrow transformer beside the frozen one.

    h⁰ = D₀(emb),   h ← μ_i h + (1 − μ_i) D_i(b_i),  h ← Block_i(h),  μ_i = σ(a_i / T),   y′ = y + U(norm(h))

D_i maps a backbone block's output b_i, cut off from its graph, to width d/ρ; U maps back. Nothing back-propagates into
the base, so training keeps none of its activations. A side block is a T5 block of width d/ρ: RMS norms, attention with
the backbone's number of heads and its own relative bias, a ReLU network of four widths; in a decoder with
cross-attention it attends the side encoder. Its keys and values are further layers of the model's cache.

Departures: the side network corrects the stack's output instead of replacing it, and U starts at zero, so that a
language model begins as itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

BUCKETS, FARTHEST, TEMPERATURE, EXPANSION = 32, 128, 0.1, 4
INPUT = "input"


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
        self.width, self.heads, self.rungs, self.cross, self.last = width, heads, rungs, cross, last
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
            call.kept[f"{call.names}/memory"] = h
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
        k, v = call.extend(f"{call.names}/{site.name}/{i}", k, v)
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
        memory = call.kept[f"{call.names}/memory"].to(h.dtype)
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
    drop_every: Annotated[int, "leave out every n-th side block, beginning with the first; 0: none"] = 0

    family: ClassVar[str] = "side"
    learning_rate: ClassVar[float] = 3e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "reduction")
        if self.drop_every == 1 or self.drop_every < 0:
            raise BadInput(f"LadderSide: drop_every={self.drop_every} leaves no side block. Try 4, or 0 to keep all.")

    def expression(self) -> str:
        return "layer stack attention"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        stacks = [site for site in sites if site.role == "stack"]
        grown: list[tuple[Site | None, Part]] = []
        for stack in stacks:
            layers = _layers(sites, stack)
            for index, site in enumerate(layers):
                grown.append((site, Rung(index == 0, self._kept(index))))
            shape = self._shape(sites, stack)
            grown.append((stack, Ladder(*shape, _crosses(sites, stack), stack is stacks[-1])))
        return grown

    def _kept(self, index: int) -> bool:
        return not self.drop_every or index % self.drop_every != 0

    def _shape(self, sites: Sequence[Site], stack: Site) -> tuple[int, int, int, int]:
        """Outer width, side width, heads, rungs."""
        width = stack.outputs // self.reduction
        if width < 1 or stack.outputs % self.reduction:
            raise BadInput(
                f"LadderSide: reduction {self.reduction} does not divide the width {stack.outputs}. Try 2 or 4."
            )
        heads = next(s.heads.query for s in sites if s.role == "attention" and s.stack == stack.stack and s.heads)
        rungs = sum(site.repeats for i, site in enumerate(_layers(sites, stack)) if self._kept(i))
        return stack.outputs, width, math.gcd(heads, width), rungs

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


def _crosses(sites: Sequence[Site], stack: Site) -> bool:
    return any(site.cross and site.stack == stack.stack for site in sites)


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.rms_norm(x, gain.shape, gain, eps=1e-6)


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
