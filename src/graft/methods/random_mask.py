"""Random masks (Fu et al. 2022, arXiv 2211.15583, as a baseline): train a random share of each matrix.

    W′ = W + M ⊙ Δ,   M ∈ {0, 1}^{out×in} with p·out·in ones at random places

Exactly so many ones (at least one), where the paper draws each by itself with probability p. The places are stored,
because what a seed draws depends on the library's version; Δ trains as a vector of the selected entries alone, so an
optimizer keeps p·D numbers of state and its decay moves nothing else. Biases and norms stay as they are; Hugging Face
PEFT's SHiRA is this method with a rank in place of p.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from graft.anatomy.site import Site
from graft.method import Method, Part, check
from graft.sparse import Sparse, kept


@dataclass(frozen=True)
class RandomMask(Method):
    """Train a random share of the weights, chosen once. Stores places and values; merges without a trace."""

    density: Annotated[float, "p, the share of each matrix that trains"] = 0.005
    seed: Annotated[int, "what the places are drawn from"] = 0
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.005.")
        check(self.seed >= 0, self, "seed", "must be at least 0", "Try 0.")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        draws = torch.Generator().manual_seed(self.seed)
        parts: list[tuple[Site | None, Part]] = []
        for site in sites:
            weight = site.weight
            drawn = weight
            if not weight.is_meta:
                drawn = torch.rand(weight.shape, generator=draws, device="cpu").to(weight.device)
            parts.append((site, Sparse(site, kept(self.density, site), drawn)))
        return parts

    def sizes(self) -> tuple[str, ...]:
        return ("density",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) for site in sites)
