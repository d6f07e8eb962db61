"""Weighted sum of layers (Yang et al. 2021, arXiv 2105.01051, SUPERB): features from all depths of a frozen model.

    z = Σ_i softmax(w)_i h_i,   i = 0 … L,   h_0 what enters the first layer,  h_L what leaves the stack

z takes the place of the stack's output (an encoder-decoder's: of its decoder's), and the task head reads it. w = 0 at
the start, the mean of all layers, so it does not start as the base. `include_embeddings=False` leaves out h_0, as the
counts of some surveys do; `normalize` brings every h_i to mean 0 and variance 1 first. h_L is behind the stack's last
norm, where it has one, and the others are the residual stream, as transformers' `hidden_states`. Nothing
back-propagates into the base, unless other parts train there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.anatomy.site import Site
from graft.errors import Refused
from graft.method import Method, Part, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

STATES = "states"


class Tap(Part):
    """Lets the sum see what enters a layer."""

    listens = True

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        call.record(STATES, x)
        return y


class Mixture(Part):
    """w, and the sum in place of the stack's output."""

    def __init__(self, layers: int, include_embeddings: bool, normalize: bool) -> None:
        super().__init__()
        self.layers, self.first, self.normalize = layers, 0 if include_embeddings else 1, normalize
        self.w = zeros(layers + include_embeddings)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        seen = call.recorded(STATES)
        if len(seen) != self.layers:
            raise Refused(
                f"{site.name} ran {len(seen)} of {self.layers} layers, and their sum needs all: set the model's "
                "layerdrop to 0."
            )
        states = torch.stack([*seen[self.first :], y])
        if self.normalize:
            states = F.layer_norm(states, states.shape[-1:])
        return torch.einsum("i,i...->...", self.w.softmax(0), states)


@dataclass(frozen=True)
class WeightedSum(Method):
    """The task head reads a learned average of all layers of a frozen model: a feature-based baseline."""

    include_embeddings: Annotated[bool, "what enters the first layer is one of the terms"] = True
    normalize: Annotated[bool, "norm every layer's output before it is added"] = False

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-1
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def expression(self) -> str:
        return "layer stack"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        stack, layers = _last(sites)
        depth = sum(site.repeats for site in layers)
        taps: list[tuple[Site | None, Part]] = [(site, Tap()) for site in layers]
        return [*taps, (stack, Mixture(depth, self.include_embeddings, self.normalize))]

    def count(self, sites: Sequence[Site]) -> int:
        return sum(site.repeats for site in _last(sites)[1]) + self.include_embeddings


def _last(sites: Sequence[Site]) -> tuple[Site, list[Site]]:
    """The last stack and its layers."""
    stack = [site for site in sites if site.role == "stack"][-1]
    return stack, [site for site in sites if site.role == "layer" and site.stack == stack.stack]
