"""OFT (Qiu et al. 2023, arXiv 2306.07280) and OFTv2 (Qiu et al. 2025, arXiv 2506.19847): rotate the input in blocks.

    x ← x R,   W′ = W Rᵀ,   R = diag(R₁, …, R_m),  R_i = (I + Q_i)(I − Q_i)⁻¹,  Q_iᵀ = −Q_i of size b by b
    neumann:   R_i = I + 2 Q + 2 Q² + … + 2 Q^{t−2} + Q^{t−1}   (t terms of the series, of OFTv2)

Starts as the base: Q = 0. Stored are the entries of Q above the diagonal, row by row. Hugging Face PEFT takes the
series by default, which is orthogonal for small Q only, and its exact form has −Q for Q. PEFT changes a block size that
does not divide the input; here it is refused. The constrained form (COFT) is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, check, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

TERMS = 64  # at most: where so many are not enough, Q is too large for the series


class Rotation(Part):
    """The blocks of one site; one block for all of its input with `share`."""

    def __init__(self, site: Site, block: int, share: bool, terms: int | None) -> None:
        super().__init__()
        self.matrix(site, looked_up=False)
        self.Q = zeros(1 if share else site.inputs // block, block * (block - 1) // 2)
        self.block, self.terms = block, terms

    def rotations(self) -> Tensor:
        """R_i for each block, (blocks, b, b)."""
        upper = torch.ones(self.block, self.block, dtype=torch.bool, device=self.Q.device).triu(1)
        values = self.Q.float()  # solving knows no half precision
        half = values.new_zeros(len(values), self.block, self.block).masked_scatter(upper, values)
        Q, identity = half - half.mT, torch.eye(self.block, device=half.device)
        if self.terms is None:
            return torch.linalg.solve(identity - Q, identity + Q)
        R, power = identity.expand_as(Q), identity
        for index in range(1, self.terms):
            power = power @ Q
            R = R + (2 if index < self.terms - 1 else 1) * power
        return R

    def _rotated(self, rows: Tensor, R: Tensor) -> Tensor:
        return torch.einsum("...mi,mij->...mj", rows.unflatten(-1, (-1, self.block)), R).flatten(-2)

    def before(self, x: Tensor, site: Site, call: "Call") -> Tensor:
        R = self.rotations().to(x.dtype)
        return self._rotated(x, R.expand(x.shape[-1] // self.block, -1, -1))

    def params(self, site: Site) -> dict[str, Tensor]:
        R = self.rotations().mT
        weight = site.weight.to(R.dtype)
        return {site.parameter: self._rotated(weight, R.expand(site.inputs // self.block, -1, -1))}


class RotationOfShare(Rotation):
    """At a share of a fused projection, whose input belongs to the other shares too: by the parameters only."""

    before = Part.before


@dataclass(frozen=True)
class OFT(Method):
    """Orthogonal change of a linear map's input, in blocks: angles between neurons stay as they were. Merges."""

    block: Annotated[int, "size of a block, a divisor of every site's input"] = 32
    share: Annotated[bool, "one block for the whole input, used again and again"] = False
    variant: Annotated[Literal["paper", "neumann"], "paper: exact rotations; neumann: a series, as in OFTv2"] = "paper"
    terms: Annotated[int, "terms of that series"] = 5
    sites: Annotated[str, "whose inputs"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.block >= 2, self, "block", "must be at least 2", "Try 32.")
        check(2 <= self.terms <= TERMS, self, "terms", f"must be at least 2 and at most {TERMS}", "Try 5.")

    def build(self, site: Site) -> Part:
        if site.inputs % self.block:
            divisors = [size for size in range(2, min(site.inputs, 128) + 1) if site.inputs % size == 0]
            near = min(divisors or [site.inputs], key=lambda size: abs(size - self.block))
            raise BadInput(
                f"OFT: block {self.block} does not divide {site.inputs}, the input of {site.name}. Try {near}."
            )
        kind = Rotation if site.rows is None else RotationOfShare
        return kind(site, self.block, self.share, self.terms if self.variant == "neumann" else None)

    def sizes(self) -> tuple[str, ...]:
        return ("block",)

    def count(self, sites: Sequence[Site]) -> int:
        each = self.block * (self.block - 1) // 2
        return sum(each if self.share else site.inputs // self.block * each for site in sites)
