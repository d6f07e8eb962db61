"""SAM, the second-order approximation method (Fu et al. 2022, arXiv 2211.15583): train what lowers the loss most.

    W′ = W + M ⊙ Δ,   M_k = 1 where s_k is among the p·out·in largest of its matrix

    "gradient"     s = g²
    "hutchinson"   s = g² / max(|h|, mean |h|),   h = mean of z ⊙ Hz over batches and `probes` vectors z of random signs
    "fisher"       s = F = mean over batches of the squared gradient

Entry k alone lowers the quadratic model of the loss, with diagonal curvature h, by g_k²/(2 h_k) at best. The paper's
method bounds h by one number for all, so that g² ranks. An estimate of the Hessian's diagonal is noisy, and negative
where the loss is not convex: its absolute value divides, and no less than the mean of that over the matrix. F is that
of batch gradients, not of rows as a FISH mask has it. g is the mean gradient of the first `batches` training batches,
all in training mode, and nothing moves meanwhile. Δ trains as a vector of the selected entries alone; biases and norms
stay as they are. Not sharpness-aware minimization.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.gradients import derivatives, differentiable
from graft.anatomy.site import Site
from graft.method import Method, Part, check, positive
from graft.sparse import Sparse, choose, kept, undecided

TINY = 1e-30  # keeps a matrix that the loss does not curve along from dividing by zero


@dataclass(frozen=True)
class SecondOrderMask(Method):
    """Train the weights that a second-order approximation of the loss gains most by. Merges without a trace."""

    density: Annotated[float, "p, the share of each matrix that trains"] = 0.005
    score: Annotated[Literal["gradient", "hutchinson", "fisher"], "what ranks the weights"] = "gradient"
    together: Annotated[bool, "choose over all matrices at once, instead of in each"] = False
    batches: Annotated[int, "training batches that the gradient is taken from"] = 599
    probes: Annotated[int, "random vectors of the Hessian's diagonal, for each batch"] = 10
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.005.")
        positive(self, "batches", "probes")

    def build(self, site: Site) -> Part:
        return Sparse(site, kept(self.density, site))

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        if not (own := undecided(parts)):
            return
        scores = self._scores(model, batches, [part.site for part in own])
        if self.together:
            choose(own, scores)
        else:
            for part, score in zip(own, scores, strict=True):
                choose([part], [score])

    def _scores(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], sites: Sequence[Site]) -> list[Tensor]:
        """What ranks the entries, by matrix."""
        slope, bend = ([torch.zeros(site.weight.shape, device=site.weight.device) for site in sites] for _ in range(2))
        with differentiable(model, sites, training=True):
            for batch in islice(batches, self.batches):
                found = derivatives(model(**batch).loss, sites, twice=self.score == "hutchinson")
                for total, gradient in zip(slope, found, strict=True):
                    total += gradient.detach()
                for total, curvature in zip(bend, self._curvature(found, sites), strict=False):
                    total += curvature.detach()
        if self.score == "fisher":
            return bend
        scores = [total.square() for total in slope]
        if self.score == "hutchinson":
            scores = [score / _damped(h) for score, h in zip(scores, bend, strict=True)]
        return scores

    def _curvature(self, gradients: Sequence[Tensor], sites: Sequence[Site]) -> Iterable[Tensor]:
        """One batch's estimate of the Hessian's diagonal, by matrix."""
        if self.score == "fisher":
            return [gradient.square() for gradient in gradients]
        if self.score == "gradient":
            return []
        totals = [torch.zeros_like(gradient) for gradient in gradients]
        for _ in range(self.probes):
            signs = [torch.randint_like(gradient, 2) * 2 - 1 for gradient in gradients]
            along = torch.stack([(g * z).sum() for g, z in zip(gradients, signs, strict=True)]).sum()
            for total, z, bent in zip(totals, signs, derivatives(along, sites, keep=True), strict=True):
                total += z * bent / self.probes
        return totals

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        return ("which weights train is decided on training rows, when training starts; until then, the largest",)

    def sizes(self) -> tuple[str, ...]:
        return ("density",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) for site in sites)


def _damped(h: Tensor) -> Tensor:
    """The size of a curvature, nowhere below its mean."""
    size = h.abs()
    return size.clamp(min=max(float(size.mean()), TINY))
