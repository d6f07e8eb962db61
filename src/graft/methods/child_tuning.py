"""Child-Tuning (Xu et al. 2021, arXiv 2109.05687): only a child network of the base is updated.

    F:  g ← g ⊙ Bernoulli(p) / p in each optimizer step        D:  W′ = W + M ⊙ Δ,   M = [F_k among the p·D largest]

"F" draws another child in each step, free of the task, and trains all entries through copies. "D" chooses one child by
the Fisher information of the training rows, F = mean of squared batch gradients, each matrix's clipped to `clip` by
itself, once, in training mode, as in the authors' code. Δ then trains as a vector of the selected entries
alone; in the authors' code weight decay moves the others too. A task head trains whole, as there, where embeddings and
pooler do too: here they stay as they are, as do biases and norms.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.gradients import derivatives, differentiable
from graft.anatomy.site import Site
from graft.method import Method, Moment, Part, StandIn, check
from graft.sparse import Sparse, choose, kept, undecided


class Copy(StandIn):
    """A site's matrix, all of which trains; a task head is none of these, and its gradients stay whole."""

    whole = True


@dataclass(frozen=True)
class ChildTuning(Method):
    """Update only a child network: a random one in each step (F), or the one the task is sensitive to (D). Merges."""

    variant: Annotated[Literal["F", "D"], "F: a random child in each step; D: one child, by Fisher information"] = "D"
    density: Annotated[float, "p, the share of the weights that is the child"] = 0.3
    clip: Annotated[float, "D: largest norm of a matrix's gradient in a batch"] = 1.0
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.3.")
        check(self.clip > 0, self, "clip", "must be above 0", "Try 1.0.")

    def build(self, site: Site) -> Part:
        return Copy(site, (site.parameter,)) if self.variant == "F" else Sparse(site, kept(self.density, site))

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        if not (own := undecided(parts)):
            return
        sites = [part.site for part in own]
        scores = [torch.zeros(site.weight.shape, device=site.weight.device) for site in sites]
        with differentiable(model, sites, training=True):
            for batch in batches:
                found = derivatives(model(**batch).loss, sites)
                for score, gradient in zip(scores, found, strict=True):
                    score += (gradient * (self.clip / gradient.norm().clamp(min=1e-6)).clamp(max=1.0)).square()
        choose(own, scores)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        if self.variant == "F" and phase == "gradients":
            for gradient in (p.grad for part in parts if isinstance(part, Copy) for p in part.parameters()):
                if gradient is not None:
                    gradient.mul_(torch.empty_like(gradient).bernoulli_(self.density) / self.density)
        return None

    @property
    def reads_gradients(self) -> bool:
        return self.variant == "F"

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        later = "which weights train is decided on training rows, when training starts; until then, the largest"
        return (later,) if self.variant == "D" else ()

    def sizes(self) -> tuple[str, ...]:
        return ("density",) if self.variant == "D" else ()

    def count(self, sites: Sequence[Site]) -> int:
        return sum(site.weight.numel() if self.variant == "F" else kept(self.density, site) for site in sites)
