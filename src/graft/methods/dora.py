"""DoRA (Liu et al. 2024, arXiv 2402.09353): magnitude and direction apart, the direction moved by a low-rank update.

    W′ = m ⊙ (W + s·B A) / ‖W + s·B A‖_row,   m ∈ R^{out},   s = α/r   (rank-stabilized: α/√r)

One norm for each output row, as in the authors' code. Starts as the base because B A = 0 and m = ‖W‖_row. The norm is
a constant in backward (paper §4.3). The cheap form never builds B·A: ‖W_k + s·B_k A‖² = ‖W_k‖² + 2s·B_k·(A W_kᵀ)
+ s²·B_k (A Aᵀ) B_kᵀ, with ‖W_k‖² computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.decomposed import scaled
from graft.method import Method, Part, check, pair, positive

if TYPE_CHECKING:
    from graft.attach.call import Call


class WeightDecomposed(Part):
    """m, A and B at one site."""

    def __init__(self, site: Site, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.low_rank(site, rank)
        self.A, self.B = pair(site, rank)
        self.square: Tensor
        self.register_buffer("square", site.weight.detach().float().square().sum(-1), persistent=False)
        self.m = nn.Parameter(self.square.sqrt())
        self.scale, self.dropout = scale, dropout

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        direction = y if site.bias is None else y - site.bias
        low = F.linear(self.drop(x), self.A) if x.is_floating_point() else F.embedding(x, self.A.T)
        direction = direction + self.scale * F.linear(low, self.B)
        scaled = (self.m / self._norm(site).to(self.m.dtype)) * direction
        return scaled if site.bias is None else scaled + site.bias

    def params(self, site: Site) -> dict[str, Tensor]:
        direction = site.weight.to(self.A.dtype) + self.scale * (self.B @ self.A)
        return {site.parameter: scaled(self.m, direction)}

    @torch.no_grad()
    def _norm(self, site: Site) -> Tensor:
        A, B = self.A.float(), self.B.float()
        cross = (B * F.linear(A, site.weight.float()).T).sum(-1)
        return (self.square + 2 * self.scale * cross + self.scale**2 * ((B @ (A @ A.T)) * B).sum(-1)).sqrt()


@dataclass(frozen=True)
class DoRA(Method):
    """LoRA on the direction of each output row, and a trained magnitude. Merges without a trace."""

    rank: Annotated[int, "width of the update"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/rank (alpha/√rank with rslora)"] = 16.0
    dropout: Annotated[float, "dropout on the update's input, in training"] = 0.0
    rslora: Annotated[bool, "rank-stabilized: scale by alpha/√rank"] = False
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-3
    start: ClassVar = "near"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 16.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")

    def build(self, site: Site) -> Part:
        scale = self.alpha / (self.rank**0.5 if self.rslora else self.rank)
        return WeightDecomposed(site, self.rank, scale, self.dropout)

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.rank * (site.inputs + site.outputs) + site.outputs for site in sites)
