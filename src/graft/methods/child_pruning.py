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

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Part, Sparse, check, kept, positive, zeros


class Pruned(Part):
    """The difference of one site's matrix, and which entries of it may differ."""

    def __init__(self, site: Site, method: "ChildPruning") -> None:
        super().__init__()
        self.site, self.owner, self.entries = site, method, kept(method.density, site)
        self.delta = zeros(*site.weight.shape)
        self.mask: Tensor
        self.register_buffer("mask", torch.ones(site.weight.shape, dtype=torch.bool))

    def largest(self) -> Tensor:
        """The difference with its largest entries alone."""
        flat = (self.delta * self.mask).flatten()
        at = flat.detach().abs().topk(self.entries).indices
        return torch.zeros_like(flat).scatter(0, at, flat[at]).view(self.delta.shape)

    def params(self, site: Site) -> dict[str, Tensor]:
        difference = self.delta * self.mask if self.training else self.largest()
        return {site.parameter: site.weight.to(difference.dtype) + difference}

    @torch.no_grad()
    def prune(self, fix: bool) -> None:
        """Put all but the largest entries back; `fix`: for good."""
        self.delta.copy_(self.largest())
        if fix:
            self.mask.copy_(self.delta != 0)

    @torch.no_grad()
    def sparse(self) -> Sparse:
        """The places and values of the largest entries."""
        found = self.largest()
        part = Sparse(self.site, self.entries, self.owner.serving(), found.abs())
        part.values.copy_(found.flatten()[part.at.long()])
        return part

    def changed(self, site: Site) -> int:
        return self.entries

    def bound(self, site: Site) -> int:
        return min(self.entries, super().bound(site))


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
        return Sparse(site, kept(self.density, site), self) if self.sparse else Pruned(site, self)

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
