"""LoRA (Hu et al. 2021, arXiv 2106.09685) and rank-stabilized LoRA (Kalajdzievski 2023, arXiv 2312.03732).

    W′ = W + s·B A,   A ∈ R^{r×in},  B ∈ R^{out×r},   s = α/r   (rank-stabilized: α/√r)

Starts as the base because B = 0; A starts as the reference code starts it, U(±1/√in), where the paper says Gaussian.
On a token embedding A is looked up instead of multiplied, and as in the reference code it is A that starts as 0, and B
as N(0, 1). With a trained magnitude for each row it is DoRA.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Part, check, pair, positive

if TYPE_CHECKING:
    from graft.attach.call import Call


class LowRank(Part):
    """ΔW = s·B A at one site; with leading expert axes, one pair for each expert."""

    def __init__(self, site: Site, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.low_rank(site, rank)
        self.A, self.B = pair(site, rank)
        self.scale, self.dropout = scale, dropout

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y + self.update(x)

    def update(self, x: Tensor) -> Tensor:
        """What is added, of what enters."""
        low = F.linear(self.drop(x), self.A) if x.is_floating_point() else F.embedding(x, self.A.T)
        return self.scale * F.linear(low, self.B)

    def params(self, site: Site) -> dict[str, Tensor]:
        weight = site.weight
        return {site.parameter: weight.to(self.A.dtype) + self.scale * (self.B @ self.A)}

    def bound(self, site: Site) -> int:
        return self.A.shape[-2]


class ExpertLowRank(LowRank):
    """Inside fused experts there is no single input to branch from: the same update, by its parameters only."""

    after = Part.after


@dataclass(frozen=True)
class LoRA(Method):
    """A low-rank update beside any linear map: W + (alpha/rank)·B·A. Merges without a trace."""

    rank: Annotated[int, "width of the update"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/rank (alpha/√rank with rslora)"] = 16.0
    dropout: Annotated[float, "dropout on the update's input, in training"] = 0.0
    rslora: Annotated[bool, "rank-stabilized: scale by alpha/√rank"] = False
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 16.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")

    @property
    def scale(self) -> float:
        """The factor in front of B·A."""
        return self.alpha / self.rank**0.5 if self.rslora else self.alpha / self.rank

    def build(self, site: Site) -> Part:
        kind = ExpertLowRank if site.batch else LowRank
        return kind(site, self.rank, self.scale, self.dropout)

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(_experts(site) * self.rank * (site.inputs + site.outputs) for site in sites)


def _experts(site: Site) -> int:
    total = 1
    for size in site.batch:
        total *= size
    return total
