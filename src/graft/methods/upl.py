"""Unified prompt learning (Jin, Lu, Zhang 2023, doi 10.1109/ICASSP49357.2023.10095738), built after its abstract.

    P(x) = λ(x) P + (1 − λ(x)) G(M(x)),   G(m) = W_u ReLU(W_d m + b_d) + b_u
    λ(x) = σ(w₂ tanh(W₁ M(x) + b₁) + b₂)

Virtual tokens in front of every input: a task's own, P ∈ R^{n×d}, and what a generator makes of this input, in shares
that are the same for every input (fixed) or that the input decides (dynamic). The abstract says no more than that it
decides on them by task and instance. So this is no reproduction: the equations are graft's, with the generator
and sentence representation of IDPG (arXiv 2204.04497), M(x) being the mean of what the frozen stack makes of x, which
costs a second forward pass without a graph. The shares start at `share` for every input, w₂ = 0; P and b_u start
U(−½, ½), so the start is not the base.

An encoder-decoder gets the tokens in the encoder only. Made of the whole row, they would tell each token of a decoder
what stands behind it, so decoders are refused. The paper scores words in a template, which is the data's affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Part, check, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Unified(Part):
    """P, the generator, and the share where it is learned."""

    reads_row = "states"

    def __init__(self, tokens: int, width: int, bottleneck: int, states: int, share: float) -> None:
        super().__init__()
        self.length, self.share, self.learned, self.gated = tokens, share, False, False
        self.P, self.up_bias = (nn.Parameter(torch.rand(tokens, width) - 0.5) for _ in range(2))
        self.down, self.down_bias = kaiming(bottleneck, states), zeros(bottleneck)
        self.up = kaiming(tokens, width, bottleneck)

    def learn(self) -> "Unified":
        """Train one share for all inputs."""
        self.learned, self.a = True, nn.Parameter(torch.full((1,), self.share).logit())
        return self

    def gate(self, hidden: int, shares: int) -> "Unified":
        """Let the input decide on the shares: one, or one for each token."""
        self.gated = True
        self.W1, self.b1, self.w2 = kaiming(hidden, self.down.shape[1]), zeros(hidden), zeros(shares, hidden)
        self.b2 = nn.Parameter(torch.full((shares,), self.share).logit())
        return self

    def tokens(self, call: "Call") -> Tensor:
        assert call.states is not None
        m = call.mean(call.states)
        inner = F.relu(F.linear(m, self.down, self.down_bias))
        instance = torch.einsum("bh,ndh->bnd", inner, self.up) + self.up_bias
        share = self._share(m)
        return share * self.P + (1 - share) * instance

    def _share(self, m: Tensor) -> Tensor | float:
        """λ of M(x) (batch, width): one for all, or (batch, 1 or n, 1)."""
        if self.gated:
            return torch.sigmoid(F.linear(torch.tanh(F.linear(m, self.W1, self.b1)), self.w2, self.b2))[..., None]
        return torch.sigmoid(self.a) if self.learned else self.share


@dataclass(frozen=True)
class UPL(Method):
    """Virtual tokens blended of a task's own and of generated ones. Built after the abstract; not for decoders."""

    tokens: Annotated[int, "number of virtual tokens"] = 10
    mode: Annotated[Literal["dynamic", "fixed"], "whether the input decides on the shares"] = "dynamic"
    share: Annotated[float, "share of the task's own tokens, between 0 and 1; the start of it when it is learned"] = 0.5
    learned: Annotated[bool, "fixed: train the share"] = False
    per_token: Annotated[bool, "dynamic: a share for each token"] = False
    bottleneck: Annotated[int, "width of the generator"] = 16
    hidden: Annotated[int, "dynamic: width of the network that decides on the shares"] = 64

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 1e-2
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens", "bottleneck", "hidden")
        check(0 < self.share < 1, self, "share", "must be between 0 and 1", "Try 0.5.")
        dynamic = self.mode == "dynamic"
        check(not (dynamic and self.learned), self, "learned", "is for mode fixed", "Try mode='fixed'.")
        check(dynamic or not self.per_token, self, "per_token", "is for mode dynamic", "Try mode='dynamic'.")

    def expression(self) -> str:
        return "embed stack"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        embed, states = _first(sites, "embed"), _first(sites, "stack").outputs
        part = Unified(self.tokens, embed.outputs, self.bottleneck, states, self.share)
        if self.mode == "dynamic":
            part.gate(self.hidden, self.tokens if self.per_token else 1)
        elif self.learned:
            part.learn()
        return [(embed, part)]

    def sizes(self) -> tuple[str, ...]:
        return ("tokens", "bottleneck", "hidden") if self.mode == "dynamic" else ("tokens", "bottleneck")

    def count(self, sites: Sequence[Site]) -> int:
        d, states = _first(sites, "embed").outputs, _first(sites, "stack").outputs
        prompts = self.tokens * d + (states + 1) * self.bottleneck + self.tokens * d * (self.bottleneck + 1)
        if self.mode == "fixed":
            return prompts + self.learned
        shares = self.tokens if self.per_token else 1
        return prompts + (states + 1) * self.hidden + shares * (self.hidden + 1)


def _first(sites: Sequence[Site], role: str) -> Site:
    return next(site for site in sites if site.role == role)
