"""Differences to the base that are few entries: how they train, and what a whole one keeps of itself; masks as bits."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from graft.anatomy.gradients import largest
from graft.anatomy.site import Site
from graft.method import Part, zeros


class Sparse(Part):
    """Trains some entries of a site's matrix: holds their places in the flattened (out, in), and what is added there.

    It begins with the `entries` largest `scores` (by default the largest weights), and as the base. Weight decay, which
    acts on what is added, draws the selected entries towards the base, and moves no other.
    """

    def __init__(self, site: Site, entries: int, scores: Tensor | None = None) -> None:
        super().__init__()
        self.site = site
        self.at: Tensor
        self.register_buffer("at", torch.empty(0, dtype=torch.int32))
        self.select((site.weight.abs() if scores is None else scores).flatten().topk(entries).indices)

    def select(self, at: Tensor) -> None:
        """Train the entries at these places from now on, and none of them changed yet."""
        self.at = at.sort().values.to(torch.int32 if self.site.weight.numel() < 2**31 else torch.int64)
        self.values = nn.Parameter(torch.zeros(len(at), device=at.device))  # a graph may know the old one's size

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        at, values = (tuple(shapes.get(name, ())) for name in ("at", "values"))
        if len(at) == 1 and at == values != tuple(self.at.shape):
            self.select(torch.arange(at[0], device=self.at.device))

    def params(self, site: Site) -> dict[str, Tensor]:
        weight = site.weight.to(self.values.dtype)
        return {site.parameter: weight.flatten().scatter_add(0, self.at.long(), self.values).view(weight.shape)}

    def changed(self, site: Site) -> int:
        return len(self.at)

    def bound(self, site: Site) -> int:
        return min(len(self.at), super().bound(site))

    def decayed(self) -> Iterable[nn.Parameter]:
        return (self.values,)


def undecided(parts: Sequence[Part]) -> list[Sparse]:
    """The parts whose entries are still to be chosen: all of these, or none once one of them has left the base."""
    own = [part for part in parts if isinstance(part, Sparse)]
    return [] if any(bool(part.values.any()) for part in own) else own


def choose(parts: Sequence[Sparse], scores: Sequence[Tensor]) -> None:
    """Train the entries with the largest scores of all these parts together, as many as trained before."""
    for part, at in zip(parts, largest(scores, sum(len(part.at) for part in parts)), strict=True):
        part.select(at)


def kept(density: float, site: Site) -> int:
    """How many entries of a site's matrix a share of it is: at least one."""
    return max(1, round(density * site.weight.numel()))


class Pruned(Part):
    """The difference of one site's whole matrix while it trains; evaluated, merged or stored are its largest entries.

    `mask` says which entries may still differ. `sparse` is the form that is served. `search` is the size of a step
    while all of them may, over that of one when few do: Adam moves every number by the rate, and a rate at which few
    learn undoes the base when all move.
    """

    whole = True

    def __init__(self, site: Site, entries: int, search: float = 1.0) -> None:
        super().__init__()
        self.site, self.entries = site, entries
        self.delta = zeros(*site.weight.shape)
        self.mask: Tensor
        self.register_buffer("mask", torch.ones(site.weight.shape, dtype=torch.bool))
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(search))

    def difference(self) -> Tensor:
        """What is added to the matrix in training."""
        return self.delta * self.mask * self.scale

    def settled(self) -> Tensor:
        """The difference of which the largest entries count outside training."""
        return self.difference()

    def largest(self) -> Tensor:
        """That difference with its largest entries alone."""
        flat = self.settled().flatten()
        at = flat.detach().abs().topk(self.entries).indices
        return torch.zeros_like(flat).scatter(0, at, flat[at]).view(self.delta.shape)

    def params(self, site: Site) -> dict[str, Tensor]:
        difference = self.difference() if self.training else self.largest()
        return {site.parameter: site.weight.to(difference.dtype) + difference}

    @torch.no_grad()
    def prune(self, fix: bool) -> None:
        """Put all but the largest entries back; `fix`: for good."""
        found = self.largest()
        if fix:
            at = found.abs().flatten().topk(self.entries).indices
            self.mask.zero_().view(-1)[at] = True
            self.scale.fill_(1)
        self.delta.copy_(found / self.scale)

    @torch.no_grad()
    def rewind(self) -> None:
        """Let the entries that moved most train alone, from the base."""
        self.prune(fix=True)
        self.delta.zero_()

    @torch.no_grad()
    def sparse(self) -> Sparse:
        """The places and values of the largest entries."""
        found = self.largest()
        part = Sparse(self.site, self.entries, found.abs())
        part.values.copy_(found.flatten()[part.at.long()])
        return part

    def changed(self, site: Site) -> int:
        return self.entries

    def bound(self, site: Site) -> int:
        return min(self.entries, super().bound(site))


def packed(kept: Tensor) -> Tensor:
    """Truth values as bits, eight to a byte of uint8, the first the lowest."""
    bits = nn.functional.pad(kept.flatten().to(torch.uint8), (0, -kept.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=kept.device)).sum(1, dtype=torch.uint8)


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The truth values that `packed` packed, in their shape."""
    found = (bits[:, None] >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1
    return found.flatten()[: torch.Size(shape).numel()].view(*shape).bool()
