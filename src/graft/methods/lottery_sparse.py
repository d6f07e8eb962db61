"""Lottery-ticket sparse fine-tuning (Ansell et al. 2022, arXiv 2110.07560): tune all, start again with what moved most.

    M_k = 1 where |δ_k| is among the p·out·in largest of its matrix after `full` steps;  then δ = 0,  W′ = W + M ⊙ δ

All entries train for `full` optimizer steps; then those that moved most train alone, from the base. Whatever is
evaluated, merged or stored has no more entries than p·out·in of each matrix at any time. Stored are their places and
values, which add up: W + φ₁ + φ₂ is two such adapters. The paper masks over all tensors together and starts the second
phase with a new optimizer; here each matrix has its share, and the optimizer's averages and the schedule go on.
Biases and norms stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Part, Sparse, check, kept, positive, zeros


class Ticket(Part):
    """The difference of one site's matrix, and which entries of it may differ."""

    def __init__(self, site: Site, method: "LotterySparse") -> None:
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
    def rewind(self) -> None:
        """Let the entries that moved most train alone, from the base."""
        at = self.delta.abs().flatten().topk(self.entries).indices
        self.mask.zero_().view(-1)[at] = True
        self.delta.zero_()

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
class LotterySparse(Method):
    """Tune all weights, find those that move most, and tune these from the start. Stores places and values; merges."""

    density: Annotated[float, "p, the share of each matrix that is kept"] = 0.005
    full: Annotated[int, "optimizer steps of all weights, before it starts again with a few"] = 500
    sparse: Annotated[bool, "attach places and values alone, as they are stored"] = False
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 5e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density <= 1, self, "density", "must be above 0 and at most 1", "Try 0.005.")
        positive(self, "full")

    def build(self, site: Site) -> Part:
        return Sparse(site, kept(self.density, site), self) if self.sparse else Ticket(site, self)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: int, parts: Sequence[Part]
    ) -> Tensor | None:
        if phase == "forward" and step == self.full:
            for part in parts:
                if isinstance(part, Ticket):
                    part.rewind()
        return None

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: part.sparse() if isinstance(part, Ticket) else part for key, part in parts.items()}

    def serving(self) -> Method:
        return replace(self, sparse=True)

    def sizes(self) -> tuple[str, ...]:
        return ("density",) if self.sparse else ()

    def count(self, sites: Sequence[Site]) -> int:
        return sum(kept(self.density, site) if self.sparse else site.weight.numel() for site in sites)
