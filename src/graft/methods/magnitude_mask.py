"""Magnitude masks (Fu et al. 2022, arXiv 2211.15583, as a baseline): train the largest weights of each matrix.

    W′ = W + M ⊙ Δ,   M_k = 1 where |W_k| is among the p·out·in largest of its matrix

The mask is that of the pretrained weights, as in the paper; the authors' code trains all weights for 500 steps first
and takes the mask of what has become of them, which leaves no entry as it was. Δ trains as a vector of the selected
entries alone. Biases and norms stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from graft.anatomy.site import Site
from graft.method import Method, Part, check
from graft.sparse import Sparse, kept


@dataclass(frozen=True)
class MagnitudeMask(Method):
    """Train the largest weights and nothing else. Stores places and values; merges without a trace."""

    density: Annotated[float, "p, the share of each matrix that trains"] = 0.005
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.005.")

    def build(self, site: Site) -> Part:
        return Sparse(site, kept(self.density, site))

    def sizes(self) -> tuple[str, ...]:
        return ("density",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) for site in sites)
