"""VeRA (Kopiczko et al. 2023, arXiv 2310.11454): one frozen random pair for all layers, scaled by trained vectors.

    y ← y + b ⊙ (B (d ⊙ (A x))),   A ∈ R^{r×in}, B ∈ R^{out×r} shared and frozen,  d ∈ R^r,  b ∈ R^{out}

Starts as the base: b = 0, d = 0.1. A and B have the size of the largest site and every site uses the part that it
needs; they are drawn as Hugging Face PEFT draws them (Kaiming uniform of gain √2, from `seed`) and stored with the
adapter, because what a seed draws depends on the library's version. `decomposed` is the DoRA paper's DVoRA.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.decomposed import Decomposed
from graft.method import Method, Part, check, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Projections(Part):
    """A and B at the largest size that any site needs."""

    def __init__(self, inputs: int, outputs: int, rank: int, seed: int) -> None:
        super().__init__()
        draws, device = torch.Generator().manual_seed(seed), torch.empty(0).device
        self.A: Tensor
        self.B: Tensor
        for name, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            bound = (6 / shape[1]) ** 0.5
            drawn = torch.empty(shape, device="meta" if device.type == "meta" else "cpu")
            self.register_buffer(name, drawn.uniform_(-bound, bound, generator=draws).to(device))


class ScaledProjection(Part):
    """d and b at one site."""

    def __init__(self, site: Site, shared: Projections, start: float, dropout: float) -> None:
        super().__init__()
        self.matrix(site)
        self.borrow(shared)
        self.d = nn.Parameter(torch.full((shared.A.shape[0],), start))
        self.b = zeros(site.outputs)
        self.dropout = dropout

    def _pair(self, site: Site, like: Tensor) -> tuple[Tensor, Tensor]:
        shared = self.lent[0]
        return shared.A[:, : site.inputs].to(like), shared.B[: site.outputs].to(like)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        A, B = self._pair(site, self.d)
        low = F.linear(self.drop(x), A) if x.is_floating_point() else F.embedding(x, A.T)
        return y + self.b * F.linear(self.d * low, B)

    def params(self, site: Site) -> dict[str, Tensor]:
        A, B = self._pair(site, self.d)
        return {site.parameter: site.weight.to(self.d.dtype) + self.b[:, None] * (B * self.d) @ A}

    def bound(self, site: Site) -> int:
        return min(len(self.d), site.inputs, site.outputs)


@dataclass(frozen=True)
class VeRA(Method):
    """Two trained vectors around a frozen random pair that all layers share: very few parameters. Merges."""

    rank: Annotated[int, "width of the random pair"] = 256
    d_initial: Annotated[float, "what d starts as"] = 0.1
    dropout: Annotated[float, "dropout on the update's input, in training"] = 0.0
    seed: Annotated[int, "what the random pair is drawn from"] = 0
    decomposed: Annotated[bool, "weight-decomposed, as DoRA: train the magnitude of each output row too"] = False
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 3e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.d_initial != 0, self, "d_initial", "must not be 0, where b gets no gradient", "Try 0.1.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")
        plain = not (self.decomposed and self.dropout)
        check(plain, self, "dropout", "must be 0 where decomposed, which changes the matrix", "Leave one of them out.")
        check(self.seed >= 0, self, "seed", "must be at least 0", "Try 0.")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        inputs, outputs = max(site.inputs for site in sites), max(site.outputs for site in sites)
        shared = Projections(inputs, outputs, self.rank, self.seed)
        parts: list[Part] = [ScaledProjection(site, shared, float(self.d_initial), self.dropout) for site in sites]
        if self.decomposed:
            parts = [Decomposed(site, part) for site, part in zip(sites, parts, strict=True)]
        return [(None, shared), *zip(sites, parts, strict=True)]

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.rank + (1 + self.decomposed) * site.outputs for site in sites)

    def drawn(self, sites: Sequence[Site]) -> int:
        inputs, outputs = max(site.inputs for site in sites), max(site.outputs for site in sites)
        return self.rank * (inputs + outputs) + self.count(sites)
