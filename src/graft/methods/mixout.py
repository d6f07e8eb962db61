"""Mixout (Lee et al. 2020, arXiv 1909.11299): in training, a random share of the weights is the pretrained one.

    W̃ = [M ⊙ W + (1 − M) ⊙ W_pre − p W_pre] / (1 − p),   M ~ Bernoulli(1 − p) for each entry and forward;   E[W̃] = W

Every entry of the matrices trains, through a copy; outside training it is W itself. The authors' code draws M for one
row and repeats it, which mixes whole input columns, and its backward lacks 1/(1 − p); here each entry is drawn, and
the gradient is the exact one. Dropout of the base stays on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Part, StandIn, check


class Mixed(StandIn):
    """A site's matrix, trained through a copy and mixed with the pretrained one."""

    whole = True

    def __init__(self, site: Site, p: float) -> None:
        super().__init__(site, (site.parameter,))
        self.p = p

    def params(self, site: Site) -> dict[str, Tensor]:
        ((name, own),) = super().params(site).items()
        if not self.training or not self.p:
            return {name: own}
        before = site.weight.to(own.dtype)
        kept = torch.empty_like(own).bernoulli_(1 - self.p)
        return {name: before + kept * (own - before) / (1 - self.p)}


@dataclass(frozen=True)
class Mixout(Method):
    """Train all weights, mixing in pretrained ones at random, so that they stay near. Merges without a trace."""

    p: Annotated[float, "the share of the weights that are the pretrained ones, in each forward of training"] = 0.9
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 3e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.p < 1, self, "p", "must be at least 0 and below 1", "Try 0.9.")

    def build(self, site: Site) -> Part:
        return Mixed(site, self.p)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(site.weight.numel() for site in sites)
