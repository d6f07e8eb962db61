"""FISH masks (Sung et al. 2021, arXiv 2111.09839): train the weights with the largest Fisher information.

    W′ = W + M ⊙ Δ,   M_k = 1 where F_k is among the p·D largest of all matrices together,   F = mean over rows of g²

g is the gradient of one row's loss, not of a batch's mean, whose square is another number; without dropout. The labels
are those of the rows (the empirical Fisher). Chosen once, on the first `samples` training rows, when training starts.
Δ trains as a vector of the selected entries alone. The paper's mask covers every tensor; here it covers the matrices of
`sites`, and biases and norms stay as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from graft.anatomy.gradients import derivatives, differentiable
from graft.anatomy.site import Site
from graft.method import Method, Part, check, positive
from graft.sparse import Sparse, choose, kept, undecided


@dataclass(frozen=True)
class FishMask(Method):
    """Train the weights that matter most to the training rows, by Fisher information. Merges without a trace."""

    density: Annotated[float, "p, the share of all weights that trains"] = 0.005
    samples: Annotated[int, "training rows that the information is estimated on"] = 1024
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.005.")
        positive(self, "samples")

    def build(self, site: Site) -> Part:
        return Sparse(site, kept(self.density, site))

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        if not (own := undecided(parts)):
            return
        sites = [part.site for part in own]
        scores = [torch.zeros(site.weight.shape, device=site.weight.device) for site in sites]
        with differentiable(model, sites, training=False):
            for row in islice(_rows(batches), self.samples):
                for score, gradient in zip(scores, derivatives(model(**row).loss, sites), strict=True):
                    score += gradient.square()
        choose(own, scores)

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        return ("which weights train is decided on training rows, when training starts; until then, the largest",)

    def sizes(self) -> tuple[str, ...]:
        return ("density",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) for site in sites)


def _rows(batches: Iterable[Mapping[str, Tensor]]) -> Iterable[dict[str, Tensor]]:
    """Each row as a batch of its own."""
    for batch in batches:
        for index in range(len(next(iter(batch.values())))):
            yield {name: tensor[index : index + 1] for name, tensor in batch.items()}
