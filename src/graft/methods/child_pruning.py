"""ChildPruning (Fu et al. 2022, arXiv 2211.15583, as a baseline): tune all, and again and again prune what moved least.

    δ ← δ ⊙ M,   M_k = 1 where |δ_k| is among the p·out·in largest of its matrix,   W′ = W + δ

All entries train; every `every` optimizer steps those that moved least go back to the base, and after `burn_in` steps
the mask stays as it is. Whatever is evaluated, merged or stored has no more entries than p·out·in of each matrix at any
time. Stored are their places and values. In the authors' code going back has no effect: it writes into a copy.
Biases and norms stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Part, check, positive
from graft.sparse import Pruned, Sparse, kept


@dataclass(frozen=True)
class ChildPruning(Method):
    """Tune all weights, keep only those that move most, and tune these. Stores places and values; merges."""

    density: Annotated[float, "p, the share of each matrix that is kept"] = 0.005
    every: Annotated[int, "optimizer steps between prunings"] = 100
    burn_in: Annotated[int, "optimizer steps after which the mask stays"] = 500
    sparse: Annotated[bool, "attach places and values alone, as they are stored"] = False
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density <= 1, self, "density", "must be above 0 and at most 1", "Try 0.005.")
        positive(self, "every", "burn_in")

    def build(self, site: Site) -> Part:
        return (
            Sparse(site, kept(self.density, site), self)
            if self.sparse
            else Pruned(site, kept(self.density, site), self)
        )

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: int, parts: Sequence[Part]
    ) -> Tensor | None:
        done = step + 1
        if phase == "stepped" and done <= self.burn_in and (done % self.every == 0 or done == self.burn_in):
            for part in parts:
                if isinstance(part, Pruned):
                    part.prune(fix=done == self.burn_in)
        return None

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: part.sparse() if isinstance(part, Pruned) else part for key, part in parts.items()}

    def serving(self) -> Method:
        return replace(self, sparse=True)

    def sizes(self) -> tuple[str, ...]:
        return ("density",) if self.sparse else ()

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) if self.sparse else site.weight.numel() for site in sites)
