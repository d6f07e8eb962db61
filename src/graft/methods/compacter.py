"""Compacter (Mahabadi et al. 2021, arXiv 2106.04647): adapters of Kronecker sums with low-rank factors.

    A(z) = z + σ(z W_d + b_d) W_u + b_u,   W = Σᵢ Aᵢ ⊗ (sᵢ tᵢ),   Aᵢ ∈ R^{n×n}, sᵢ ∈ R^{p/n×k}, tᵢ ∈ R^{k×q/n}

One set {Aᵢ} serves every matrix of the whole model. W is never built: z is read as n groups of p/n, which sᵢ makes
narrow before Aᵢ mixes them. After attention and after the FFN, before the residual (Compacter++: after the FFN alone);
the norms train too. Starts near the base: A ~ N(0, (1e-4)²), s and t Glorot-uniform, biases 0. (AdapterHub's
code means to draw s and t so and draws them from a normal distribution.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.kronecker import glorot
from graft.method import ACTIVATIONS, Activation, Method, Part, StandIn, check, normal, positive, reduced, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Rule(Part):
    """{Aᵢ}, (n, n, n): how groups mix, for the whole model."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.A = normal(n, n, n, std=1e-4)


class CompactSeries(Part):
    """One bottleneck of two Kronecker sums on what leaves a sub-layer."""

    def __init__(self, rule: Rule, width: int, bottleneck: int, k: int, activation: Activation) -> None:
        super().__init__()
        self.borrow(rule)
        n = len(rule.A)
        self.down_s, self.down_t = glorot(n, width // n, k), glorot(n, k, bottleneck // n)
        self.up_s, self.up_t = glorot(n, bottleneck // n, k), glorot(n, k, width // n)
        self.down_bias, self.up_bias = zeros(bottleneck), zeros(width)
        self.activation = activation

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        A = self.lent[0].A.to(self.down_s.dtype)
        inner = ACTIVATIONS[self.activation](_kronecker(y, A, self.down_s, self.down_t) + self.down_bias)
        return y + _kronecker(inner, A, self.up_s, self.up_t) + self.up_bias


def _kronecker(x: Tensor, A: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """x Σᵢ Aᵢ ⊗ (sᵢ tᵢ): (…, p) → (…, q)."""
    narrow = torch.einsum("...pa,iak->...pik", x.unflatten(-1, (len(A), -1)), s)
    mixed = torch.einsum("...pik,ipq->...qik", narrow, A)
    return torch.einsum("...qik,ikc->...qc", mixed, t).flatten(-2)


@dataclass(frozen=True)
class Compacter(Method):
    """A bottleneck adapter of low-rank Kronecker sums after attention and after the feed-forward network."""

    reduction: Annotated[int, "the bottleneck is this many times narrower than the model"] = 32
    n: Annotated[int, "number of Kronecker products; divides the model's width and the bottleneck"] = 4
    k: Annotated[int, "rank of each product's second factor"] = 1
    activation: Annotated[Activation, "non-linearity inside"] = "gelu_new"
    train_layernorm: Annotated[bool, "train the norms too, as in the paper"] = True
    sites: Annotated[str, "which sub-layers; the paper leaves cross-attention out"] = "self: attention; ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "near"

    def __post_init__(self) -> None:
        super().__post_init__()
        check("norm" not in self.sites, self, "sites", "must leave norms to train_layernorm", "Try 'attention ffn'.")
        positive(self, "reduction", "n", "k")

    def expression(self) -> str:
        return f"{self.sites}; norm" if self.train_layernorm else self.sites

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        rule = Rule(self.n)
        grown: list[tuple[Site | None, Part]] = [(None, rule)]
        for site in sites:
            if site.role != "norm":
                grown.append((site, CompactSeries(rule, *self._widths(site), self.k, self.activation)))
            else:
                grown.append((site, StandIn(site)))
        return grown

    def sizes(self) -> tuple[str, ...]:
        return ("k",)

    def count(self, sites: Sequence[Site]) -> int:
        norms = [site for site in sites if site.role == "norm"]
        ends = sum(sum(self._widths(site)) for site in sites if site.role != "norm")
        return self.n**3 + (2 * self.k + 1) * ends + sum(site.outputs * (1 + (site.bias is not None)) for site in norms)

    def _widths(self, site: Site) -> tuple[int, int]:
        """Of the model and of the bottleneck."""
        width, inner = site.outputs, reduced(self, site.outputs, self.n)
        if inner % self.n or width % self.n:
            raise BadInput(
                f"Compacter: n={self.n} has to divide the width {width} and the bottleneck {inner}, which is the width "
                f"over reduction {self.reduction}. Choose an n that does, or another reduction."
            )
        if self.k > inner // self.n:
            raise BadInput(
                f"Compacter: k={self.k} is above the smaller side of the products' factors, {inner // self.n}. "
                "Choose a smaller k or reduction."
            )
        return width, inner
