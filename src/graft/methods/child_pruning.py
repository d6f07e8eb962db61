"""ChildPruning (Fu et al. 2022, arXiv 2211.15583, as a baseline): tune all, and again and again prune what moved least.

    δ ← δ ⊙ M,   M_k = 1 where |δ_k| is among the p·out·in largest of its matrix,   W′ = W + δ

All entries train; every `every` optimizer steps those that moved least go back to the base, and after `burn_in` steps,
or half of the run, the mask stays as it is. Whatever is evaluated, merged or stored has no more entries than p·out·in
of each matrix at any time. Stored are their places and values. The optimizer's state is that of all entries, to the
end of the run: any may come back during the search. In the authors' code going back has no effect: it writes into a
copy. Biases and norms stay as they are.

Departure: a step of the search is `search` times as long as one of the kept entries, which learn at rates that undo the
base when all move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Moment, Part, check, positive
from graft.sparse import Pruned, Sparse, kept

HALF, TENTH = 0.5, 0.1  # of the run


@dataclass(frozen=True)
class ChildPruning(Method):
    """Tune all weights, keep only those that move most, and tune these. Stores places and values; merges."""

    density: Annotated[float, "p, the share of each matrix that is kept"] = 0.005
    every: Annotated[int | None, "optimizer steps between prunings; none: a tenth of the run"] = None
    burn_in: Annotated[int | None, "optimizer steps after which the mask stays; none: half of the run"] = None
    search: Annotated[float, "steps of the search, which moves all weights, over those of the kept ones"] = 0.03
    sparse: Annotated[bool, "attach places and values alone, as they are stored"] = False
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.005.")
        check(0 < self.search <= 1, self, "search", "must be above 0 and at most 1", "Try 0.03.")
        positive(self, "every", "burn_in")

    def build(self, site: Site) -> Part:
        entries = kept(self.density, site)
        return Sparse(site, entries) if self.sparse else Pruned(site, entries, self.search)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        fix = step.reaches(self.burn_in, HALF)
        if phase == "forward" and (fix or (step.every(self.every, TENTH) and not step.over(self.burn_in, HALF))):
            for part in parts:
                if isinstance(part, Pruned):
                    part.prune(fix)
        return None

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: part.sparse() if isinstance(part, Pruned) else part for key, part in parts.items()}

    def serving(self) -> Method:
        return replace(self, sparse=True)

    def sizes(self) -> tuple[str, ...]:
        return ("density",) if self.sparse else ()

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) if self.sparse else site.weight.numel() for site in sites)
