"""Side-tuning (Zhang et al. 2020, arXiv 1912.13503): a small network of its own beside the frozen one.

    R(x) = α B(x) + (1 − α) S(x),   α = σ(a)

B(x) is what leaves the base's stack (an encoder-decoder's: its decoder's) and the head reads R(x). S sees what enters
the first layer and nothing else of the base, so training needs no graph through it. The paper leaves S open, and for
text this one is made of k blocks of width d/ρ with relative positions; in a decoder they are causal and keep their
keys and values as further layers of the model's cache, and beside an encoder-decoder S is one too:

    h = D norm(x) + b,   h ← h + Attn(norm(h)),  h ← h + FFN(norm(h))  k times,   S(x) = U norm(h) + c

With `layers=0` each token is by itself: S(x) = U GELU(D norm(x) + b) + c.

Departure: the paper's S begins as a copy or a distilled form of B; this one begins at zero, U = 0, so R begins as α B,
which ranks words as the base does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, check, kaiming, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

HEADS, FARTHEST, EXPANSION = 4, 32, 4
DEEPEST = 128  # blocks; it is meant to be small, and runs them one after the other
INPUT = "side input"


class Tap(Part):
    """Lets the side network see what enters the first layer."""

    listens = True

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        if not call.recorded(INPUT):  # a layer may run more than once
            call.record(INPUT, x)
        return y


class Side(Part):
    """S of one stack, and α where it is the last one."""

    def __init__(self, outer: int, width: int, layers: int, cross: bool, alpha: float | None) -> None:
        super().__init__()
        self.layers, self.cross, self.heads, self.last = layers, cross, math.gcd(HEADS, width), alpha is not None
        self.gain, self.down, self.down_bias = nn.Parameter(torch.ones(outer)), kaiming(width, outer), zeros(width)
        if layers:
            self.distances = normal(2 * FARTHEST + 1, self.heads, std=0.02)
            self.norms = nn.Parameter(torch.ones(layers, 2 + cross, width))
            self.attentions = kaiming(layers, 1 + cross, 4, width, width)
            self.wide, self.narrow = (
                kaiming(layers, EXPANSION * width, width),
                kaiming(layers, width, EXPANSION * width),
            )
            self.final = nn.Parameter(torch.ones(width))
        if alpha is not None:
            self.a = nn.Parameter(torch.full((1,), alpha).logit())
            self.up, self.up_bias = zeros(outer, width), zeros(outer)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        h = self._run(call.recorded(INPUT)[0].to(self.down.dtype), site, call)
        if not self.last:
            call.kept[call.own("side")] = h
            return y
        alpha = torch.sigmoid(self.a)
        return alpha * y + (1 - alpha) * F.linear(h, self.up, self.up_bias)

    def _run(self, x: Tensor, site: Site, call: "Call") -> Tensor:
        """(batch, n, d) to (batch, n, width)."""
        h = F.linear(_norm(x, self.gain), self.down, self.down_bias)
        if not self.layers:
            return F.gelu(h)
        for i, norms in enumerate(self.norms):
            h = h + self._attend(i, _norm(h, norms[0]), site, call)
            if self.cross:
                h = h + self._attend_encoder(i, _norm(h, norms[1]), call)
            h = h + F.linear(F.relu(F.linear(_norm(h, norms[-1]), self.wide[i])), self.narrow[i])
        return _norm(h, self.final)

    def _attend(self, i: int, h: Tensor, site: Site, call: "Call") -> Tensor:
        q, k, v = (self._split(h, W) for W in self.attentions[i, 0, :3])
        k, v = call.extend(f"{site.name}/side {i}", k, v)
        n, seen = q.shape[2], k.shape[2]
        distance = torch.arange(seen, device=h.device)[None] - torch.arange(seen - n, seen, device=h.device)[:, None]
        near = F.embedding(distance.clamp(-FARTHEST, FARTHEST) + FARTHEST, self.distances).permute(2, 0, 1)
        return _mixed(q, k, v, near, call.hidden(n, seen, h.device), self.attentions[i, 0, 3])

    def _attend_encoder(self, i: int, h: Tensor, call: "Call") -> Tensor:
        memory = call.kept[call.own("side")].to(h.dtype)
        memory = memory.repeat_interleave(len(h) // len(memory), 0)  # one for each beam
        q, k, v = (self._split(t, W) for t, W in zip((h, memory, memory), self.attentions[i, 1, :3], strict=True))
        hidden = None if call.memory_mask is None else ~call.memory_mask[:, None, None].bool()
        return _mixed(q, k, v, h.new_zeros(1), hidden, self.attentions[i, 1, 3])

    def _split(self, x: Tensor, W: Tensor) -> Tensor:
        return F.linear(x, W).unflatten(-1, (self.heads, -1)).transpose(1, 2)


@dataclass(frozen=True)
class SideTuning(Method):
    """A small network beside the frozen base, blended with its output; training never back-propagates into the base."""

    layers: Annotated[int, "blocks of the side network; 0: two linear maps of each token by itself"] = 2
    reduction: Annotated[int, "the side network is this many times narrower"] = 4
    alpha: Annotated[float, "share of the base in the output at the start, between 0 and 1"] = 0.5

    family: ClassVar[str] = "side"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "reduction")
        check(0 <= self.layers <= DEEPEST, self, "layers", f"must be at least 0 and at most {DEEPEST}", "Try 2.")
        check(0 < self.alpha < 1, self, "alpha", "must be between 0 and 1", "Try 0.5.")

    def expression(self) -> str:
        return "layer stack attention"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        grown: list[tuple[Site | None, Part]] = []
        for stack, cross, last in self._beside(sites):
            layer = next(site for site in sites if site.role == "layer" and site.stack == stack.stack)
            side = Side(stack.outputs, self._width(stack), self.layers, cross, self.alpha if last else None)
            grown += [(layer, Tap()), (stack, side)]
        return grown

    def sizes(self) -> tuple[str, ...]:
        return ("reduction",)

    def count(self, sites: Sequence[Site]) -> int:
        total = 0
        for stack, cross, last in self._beside(sites):
            d, w = stack.outputs, self._width(stack)
            total += d + (d + 1) * w + last * (w * d + d + 1)
            total += self.layers * ((2 + cross) * w + (1 + cross) * 4 * w * w + 2 * EXPANSION * w * w)
            total += bool(self.layers) * ((2 * FARTHEST + 1) * math.gcd(HEADS, w) + w)
        return total

    def _beside(self, sites: Sequence[Site]) -> list[tuple[Site, bool, bool]]:
        """The stacks that have a side network; whether it attends the one before it, and whether it is the last."""
        stacks = [site for site in sites if site.role == "stack"]
        cross = self.layers > 0 and any(site.cross and site.stack == stacks[-1].stack for site in sites)
        before = [(stack, False, False) for stack in stacks[:-1] if cross]
        return [*before, (stacks[-1], cross, True)]

    def _width(self, stack: Site) -> int:
        if stack.outputs % self.reduction:
            raise BadInput(
                f"SideTuning: reduction {self.reduction} does not divide the width {stack.outputs}. Try 2 or 4."
            )
        return stack.outputs // self.reduction


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.rms_norm(x, gain.shape, gain.to(x.dtype), eps=1e-6)  # autocast leaves x in half precision


def _mixed(q: Tensor, k: Tensor, v: Tensor, near: Tensor, hidden: Tensor | None, W: Tensor) -> Tensor:
    """Attention (batch, heads, n, width) through its output map W, (batch, n, heads·width)."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + near
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return F.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), W)
