"""Lottery-ticket sparse fine-tuning (Ansell et al. 2022, arXiv 2110.07560): tune all, start again with what moved most.

    M_k = 1 where |δ_k| is among the p·out·in largest of its matrix after `full` steps;  then δ = 0,  W′ = W + M ⊙ δ

All entries train for `full` optimizer steps; then those that moved most train alone, from the base. Whatever is
evaluated, merged or stored has no more entries than p·out·in of each matrix at any time. Stored are their places and
values, which add up: W + φ₁ + φ₂ is two such adapters. The optimizer's state is that of all entries, which the search
needs, to the end of the run. Biases and norms stay as they are.

Departures: the paper masks over all tensors together, has one rate and starts the second phase with a new optimizer.
Here each matrix has its share, a step of the search is `search` times as long as one of the few, which learn at rates
that undo the base when all entries move, and the optimizer's averages and the schedule go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Moment, Part, check, positive
from graft.sparse import Pruned, Sparse, kept

HALF = 0.5  # of the run


@dataclass(frozen=True)
class LotterySparse(Method):
    """Tune all weights, find those that move most, and tune these from the start. Stores places and values; merges."""

    density: Annotated[float, "p, the share of each matrix that is kept"] = 0.005
    full: Annotated[int | None, "steps of all weights, before it starts again with a few; none: half of the run"] = None
    search: Annotated[float, "steps of the search, which moves all weights, over those of the kept ones"] = 0.03
    sparse: Annotated[bool, "attach places and values alone, as they are stored"] = False
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.005.")
        check(0 < self.search <= 1, self, "search", "must be above 0 and at most 1", "Try 0.03.")
        positive(self, "full")

    def build(self, site: Site) -> Part:
        entries = kept(self.density, site)
        return Sparse(site, entries) if self.sparse else Pruned(site, entries, self.search)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        if phase == "forward" and step.reaches(self.full, HALF):
            for part in parts:
                if isinstance(part, Pruned):
                    part.rewind()
        return None

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: part.sparse() if isinstance(part, Pruned) else part for key, part in parts.items()}

    def serving(self) -> Method:
        return replace(self, sparse=True)

    def sizes(self) -> tuple[str, ...]:
        return ("density",) if self.sparse else ()

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) if self.sparse else site.weight.numel() for site in sites)
