"""LoKr (LyCORIS: Yeh et al. 2023, arXiv 2309.14859; KronA: Edalati et al. 2022, arXiv 2212.10650).

    W′ = W + s·C ⊗ D,   D = B A or full,   s = α/r   (rank-stabilized: α/√r)
    C ∈ R^{o₁×i₁},  D ∈ R^{o₂×i₂},  o₁·o₂ = out,  i₁·i₂ = in

Starts as the base because A (or the full D) is 0, as in LyCORIS; Hugging Face PEFT has C = 0. D is full where r is not
below half its longer side; s is α/r even then, as in PEFT, where LyCORIS takes s = 1. The product is never built:
(C ⊗ D) x is C X Dᵀ for x read as an i₁ by i₂ matrix X. `variant="hf"`: a factor that does not divide is lowered to a
divisor that does, as in PEFT and LyCORIS; otherwise it is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.decomposed import Decomposed
from graft.errors import BadInput
from graft.method import Method, Part, check, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

Shape = tuple[int, int]


class Kronecker(Part):
    """C (or its pair C₁ C₂) and D (or its pair B A) at one site. A rank of None: full."""

    def __init__(self, left: Shape, right: Shape, ranks: tuple[int | None, int | None], scale: float) -> None:
        super().__init__()
        self.scale, (of_left, of_right) = scale, ranks
        if of_left is None:
            self.C = kaiming(*left)
        else:
            self.C1, self.C2 = kaiming(left[0], of_left), kaiming(of_left, left[1])
        if of_right is None:
            self.D = zeros(*right)
        else:
            self.B, self.A = kaiming(right[0], of_right), zeros(of_right, right[1])
        self.full = of_left is None, of_right is None

    def _left(self) -> Tensor:
        return self.C if self.full[0] else self.C1 @ self.C2

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        left = self._left()
        blocks = x.unflatten(-1, (left.shape[1], -1))
        update = left @ (blocks @ self.D.T) if self.full[1] else left @ (blocks @ self.A.T) @ self.B.T
        return y + self.scale * update.flatten(-2)

    def params(self, site: Site) -> dict[str, Tensor]:
        update = self.scale * torch.kron(self._left(), self.D if self.full[1] else self.B @ self.A)
        return {site.parameter: site.weight.to(update.dtype) + update}

    def bound(self, site: Site) -> int:
        left = min(self.C.shape) if self.full[0] else min(*self.C1.shape, self.C2.shape[1])
        right = min(self.D.shape) if self.full[1] else min(*self.B.shape, self.A.shape[1])
        return left * right


@dataclass(frozen=True)
class LoKr(Method):
    """A Kronecker product as the update, its larger factor of low rank: few parameters, high rank. Merges."""

    rank: Annotated[int, "rank of the larger factor; large enough, and that factor is full"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/rank (alpha/√rank with rslora)"] = 16.0
    factor: Annotated[int, "both sides of the smaller factor; 0: the divisors nearest below the square roots"] = 0
    decompose_both: Annotated[bool, "low rank for the smaller factor too, where its sides are over twice the rank"] = (
        False
    )
    variant: Annotated[Literal["paper", "hf"], "hf: lower a factor that does not divide to one that does"] = "paper"
    rslora: Annotated[bool, "rank-stabilized: scale by alpha/√rank"] = False
    decomposed: Annotated[bool, "weight-decomposed, as DoRA: train the magnitude of each output row too"] = False
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 16.")
        check(self.factor >= 0, self, "factor", "must be at least 0", "Try 0.")

    def build(self, site: Site) -> Part:
        left, right, *ranks = self.shapes(site.outputs, site.inputs, site.name)
        part = Kronecker(left, right, (ranks[0], ranks[1]), self.scale).matrix(site, looked_up=False)
        return Decomposed(site, part) if self.decomposed else part

    @property
    def scale(self) -> float:
        """What the update is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def shapes(self, outputs: int, inputs: int, name: str) -> tuple[Shape, Shape, int | None, int | None]:
        """The shapes of C and D at a site, and their ranks, None where full."""
        pairs = [self._split(size, name) for size in (outputs, inputs)]
        left, right = (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])
        thin = [2 * self.rank < max(shape) for shape in (left, right)]
        return left, right, self.rank if self.decompose_both and thin[0] else None, self.rank if thin[1] else None

    def _split(self, size: int, name: str) -> Shape:
        first = self.factor
        if not first or (size % first and self.variant == "hf"):
            limit = min(first or size, math.isqrt(size))
            first = max(divisor for divisor in range(1, limit + 1) if size % divisor == 0)
        if size % first:
            raise BadInput(f"LoKr: factor {first} does not divide {size}, a side of {name}. Try 0.")
        return first, size // first

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        total = 0
        for site in sites:
            left, right, *ranks = self.shapes(site.outputs, site.inputs, site.name)
            for shape, rank in zip((left, right), ranks, strict=True):
                total += math.prod(shape) if rank is None else rank * sum(shape)
            total += self.decomposed * site.outputs
        return total
