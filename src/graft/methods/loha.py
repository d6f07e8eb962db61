"""LoHa (FedPara: Hyeon-Woo et al. 2021, arXiv 2108.06098; LyCORIS: Yeh et al. 2023, arXiv 2309.14859).

    W′ = W + s·(B₁ A₁) ⊙ (B₂ A₂),   A ∈ R^{r×in},  B ∈ R^{out×r},   s = α/r

Two low-rank pairs multiplied entry by entry: rank up to r² for the parameters of a LoRA of rank 2r. Starts as the base
because B₂ = 0; the others are U(±1/√columns) as in Hugging Face PEFT (which has A₂ = 0), where LyCORIS draws N(0, 0.1²)
and N(0, 1). The product has no thin form: the update is built and added to the weight, and one product with the input
follows. Its entries are products of two sums of r terms, so that α/r is the scale that is stable in the rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from graft.anatomy.site import Site
from graft.decomposed import Decomposed
from graft.method import Method, Part, check, kaiming, positive, zeros


class Hadamard(Part):
    """The two pairs at one site."""

    def __init__(self, site: Site, rank: int, scale: float) -> None:
        super().__init__()
        self.matrix(site).low_rank(site, rank)
        self.B1, self.A1 = kaiming(site.outputs, rank), kaiming(rank, site.inputs)
        self.B2, self.A2 = zeros(site.outputs, rank), kaiming(rank, site.inputs)
        self.scale = scale

    def params(self, site: Site) -> dict[str, Tensor]:
        update = self.scale * (self.B1 @ self.A1) * (self.B2 @ self.A2)
        return {site.parameter: site.weight.to(update.dtype) + update}

    def bound(self, site: Site) -> int:
        return min(self.A1.shape[0] ** 2, site.inputs, site.outputs)


@dataclass(frozen=True)
class LoHa(Method):
    """The entrywise product of two low-rank updates: more rank for the same parameters. Merges without a trace."""

    rank: Annotated[int, "width of each of the two pairs"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/rank"] = 16.0
    decomposed: Annotated[bool, "weight-decomposed, as DoRA: train the magnitude of each output row too"] = False
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 16.")

    def build(self, site: Site) -> Part:
        part = Hadamard(site, self.rank, self.alpha / self.rank)
        return Decomposed(site, part) if self.decomposed else part

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(2 * self.rank * (site.inputs + site.outputs) + self.decomposed * site.outputs for site in sites)
