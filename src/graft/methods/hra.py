"""HRA (Yuan et al. 2024, arXiv 2405.17484): rotate what enters a linear map by a chain of Householder reflections.

    W′ = W H₁ ⋯ H_r,   H_i = I − 2 u_i u_iᵀ,   u_i ∈ R^{in} of unit length
    loss + λ ‖I − Uᵀ U‖²_F   (λ = `penalty`);  λ → ∞ is `gram_schmidt`: the u_i made orthogonal

Starts as the base: the u_i come in equal pairs, whose reflections cancel; hence r is even. Orthogonal u_i cannot
cancel, so with `gram_schmidt` it starts elsewhere, from U(±1/√r) each; Hugging Face PEFT and the authors' code keep the
pairs there and orthogonalize rounding errors. The chain is I − U T Uᵀ with T⁻¹ = ½ I + the part of Uᵀ U above its
diagonal, so its cost is that of a LoRA of rank r.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Moment, Part, check, kaiming, positive

if TYPE_CHECKING:
    from graft.attach.call import Call


class Reflections(Part):
    """The r vectors of one site, columns of U."""

    def __init__(self, site: Site, rank: int, gram_schmidt: bool, pairs: bool) -> None:
        super().__init__()
        self.matrix(site, looked_up=False).low_rank(site, rank)
        drawn = kaiming(site.inputs, rank // 2 if pairs else rank)
        self.U = nn.Parameter(drawn.detach().repeat_interleave(2, 1)) if pairs else drawn
        self.gram_schmidt = gram_schmidt

    def directions(self) -> Tensor:
        """U with columns of unit length, orthogonal with `gram_schmidt`."""
        U = self.U.float()  # factorizations know no half precision
        return torch.linalg.qr(U).Q if self.gram_schmidt else U / U.norm(dim=0)

    def factors(self) -> tuple[Tensor, Tensor]:
        """U T and U, so that the chain of reflections is I − (U T) Uᵀ."""
        U = self.directions()
        inverse = (U.T @ U).triu(1) + 0.5 * torch.eye(U.shape[1], device=U.device)
        return torch.linalg.solve_triangular(inverse, U, upper=True, left=False), U

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        left, right = (factor.to(x.dtype) for factor in self.factors())
        return y - F.linear(F.linear(x, right.T), site.weight.to(x.dtype) @ left)

    def params(self, site: Site) -> dict[str, Tensor]:
        left, right = self.factors()
        weight = site.weight.to(left.dtype)
        return {site.parameter: weight - (weight @ left) @ right.T}

    def bound(self, site: Site) -> int:
        return self.U.shape[1]


@dataclass(frozen=True)
class HRA(Method):
    """Orthogonal change of a linear map's input by a chain of reflections, which is low-rank too. Merges."""

    rank: Annotated[int, "number of reflections; even, where they start in pairs"] = 8
    gram_schmidt: Annotated[bool, "make the reflections' directions orthogonal; it then starts elsewhere"] = False
    penalty: Annotated[float, "λ, how much the directions are held orthogonal in training"] = 0.0
    init: Annotated[
        Literal["pairs", "random"],
        "pairs: start as the base; random: elsewhere, as Hugging Face PEFT does of an odd rank",
    ] = "pairs"
    sites: Annotated[str, "whose inputs"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-2
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "near"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        odd = self.rank % 2 and self._pairs
        check(not odd, self, "rank", "must be even, for reflections to cancel in pairs", f"Try {self.rank + 1}.")
        check(self.penalty >= 0, self, "penalty", "must be at least 0", "Try 0.0001.")
        if not self._pairs:
            object.__setattr__(self, "start", "elsewhere")

    @property
    def _pairs(self) -> bool:
        return self.init == "pairs" and not self.gram_schmidt

    def build(self, site: Site) -> Part:
        return Reflections(site, self.rank, self.gram_schmidt, self._pairs)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        if phase != "loss" or not self.penalty or self.gram_schmidt:
            return None
        chains = [part.directions() for part in parts if isinstance(part, Reflections)]
        return self.penalty * torch.stack([(U.T @ U).fill_diagonal_(0).square().sum() for U in chains]).sum()

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.rank * site.inputs for site in sites)
