"""Res-Tuning-Bypass (Jiang et al. 2023, arXiv 2310.19859): a chain of bottlenecks beside the frozen base.

    x̃_l = H_l(sg[x_l]) + V_l(x̃_{l−1}),  x̃_0 = sg[x_0],   H, V: u + GELU(u W_d + b_d) W_u + b_u

x_0 is what enters the first layer, x_l what leaves the l-th, the last one behind the stack's last norm where it has
one, and sg stops gradients: nothing back-propagates into the base. In an encoder-decoder it is the decoder's chain.

`form="paper"`: the head reads x̃_L, with weights Xavier-uniform, biases N(0, 10⁻¹²) and the last layer's W_u = 0. That
is a new input for a head, x̃_L = x_L + x̃_{L−1} at the start, which suits one that trains. Departure: by default the
head reads x_L + x̃_L − Σ_l x_l, what the bottlenecks alone add up to, and all W_u and b_u start at 0, so that a language
model, whose head is frozen, begins as itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import Refused
from graft.method import Method, Part, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

BIAS = 1e-6
STATES = "bypassed"


class Tap(Part):
    """Lets the chain see what enters a layer, without its graph."""

    listens = True

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        call.record(STATES, x.detach())
        return y


class Chain(Part):
    """H and V of all layers: tensors are (2, layers, ...), and the whole chain runs at the stack's output."""

    def __init__(self, layers: int, width: int, bottleneck: int, paper: bool) -> None:
        super().__init__()
        bound = (6 / (width + bottleneck)) ** 0.5
        self.paper = paper
        self.down = nn.Parameter(torch.empty(2, layers, bottleneck, width).uniform_(-bound, bound))
        self.down_bias = normal(2, layers, bottleneck, std=BIAS)
        self.up, self.up_bias = zeros(2, layers, width, bottleneck), zeros(2, layers, width)
        if paper:
            self.up.data[:, :-1].uniform_(-bound, bound)
            self.up_bias.data.normal_(0, BIAS)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        entered, layers = call.recorded(STATES), self.down.shape[1]
        if len(entered) != layers:
            raise Refused(
                f"{site.name} ran {len(entered)} of {layers} layers, and the bypass needs all: set the model's "
                "layerdrop to 0."
            )
        first, *states = (state.to(self.down.dtype) for state in (*entered, y.detach()))
        chain, added = first, torch.zeros_like(first)
        for layer, state in enumerate(states):
            change = self._bottleneck(0, layer, state) + self._bottleneck(1, layer, chain)
            chain, added = chain + state + change, added + change
        return y + (chain - states[-1] if self.paper else added)

    def _bottleneck(self, which: int, layer: int, u: Tensor) -> Tensor:
        """H's (0) or V's (1) of a layer, without its residual."""
        inner = F.gelu(F.linear(u, self.down[which, layer], self.down_bias[which, layer]))
        return F.linear(inner, self.up[which, layer], self.up_bias[which, layer])


@dataclass(frozen=True)
class ResTuningBypass(Method):
    """A chain of bottlenecks fed by every layer of the frozen base; training never back-propagates into the base."""

    bottleneck: Annotated[int, "width of the bottlenecks, two for each layer"] = 10
    form: Annotated[Literal["correction", "paper"], "correct what the head reads, or replace it as published"] = (
        "correction"
    )

    family: ClassVar[str] = "side"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bottleneck")

    @property
    def start(self) -> Literal["exact", "near", "elsewhere"]:  # type: ignore[override]
        """As published, the chain is the sum of all layers at the start."""
        return "elsewhere" if self.form == "paper" else "exact"

    def expression(self) -> str:
        return "layer stack"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        stack, layers = _last(sites)
        taps: list[tuple[Site | None, Part]] = [(site, Tap()) for site in layers]
        return [*taps, (stack, Chain(_depth(layers), stack.outputs, self.bottleneck, self.form == "paper"))]

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        stack, layers = _last(sites)
        d, r = stack.outputs, self.bottleneck
        return 2 * _depth(layers) * (2 * d * r + r + d)


def _last(sites: Sequence[Site]) -> tuple[Site, list[Site]]:
    """The last stack and its layers."""
    stack = [site for site in sites if site.role == "stack"][-1]
    return stack, [site for site in sites if site.role == "layer" and site.stack == stack.stack]


def _depth(layers: Sequence[Site]) -> int:
    return sum(site.repeats for site in layers)
