"""Adapters side by side: each given the same, and what they add is weighted and added up.

    y ← y + Σₙ wₙ zₙ,   zₙ = what adapter n adds to y alone
    W′ = W + Σₙ wₙ (Wₙ − W)   of those that change parameters

Of LoRAs it is Σ wₙ Bₙ Aₙ, task arithmetic (Ilharco et al. 2023, arXiv 2212.04089) and LoraHub (arXiv 2307.13269); of
sparse updates, W + φ₁ + φ₂ with weights of 1 (a task's and a language's, Ansell et al. 2022, arXiv 2110.07560); of
bottlenecks, an ensemble at every sub-layer. A negative weight takes a skill away.

The adapters are on the model, and named; what is attached has copies of them, which train on together, and is saved
and loaded with all of them (`hosts` says how they were made). It merges where they all do. AdapterHub's "parallel", one
adapter for each copy of the input, is `graft.use(model, [...])` with a name for each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.composition import weights
from graft.hosts import Hosting, check_names, grown, hosted
from graft.method import Method, Part
from graft.spelling import read

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter
    from graft.attach.call import Call


class Weighed(Hosting):
    """The adapters of one site."""

    def __init__(self, adapters: Sequence[Part], shares: Sequence[float]) -> None:
        super().__init__(adapters)
        self.shares = tuple(shares)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        for share, z in zip(self.shares, self.added(x, y, site, call), strict=True):
            y = y + share * z
        return y


class Mergeable(Weighed):
    """The same of adapters that all change parameters."""

    def __init__(self, adapters: Sequence[Part], shares: Sequence[float]) -> None:
        super().__init__(adapters, shares)
        self.replaces = tuple(dict.fromkeys(name for part in adapters for name in part.replaces))

    def params(self, site: Site) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for share, name in zip(self.shares, self.names, strict=True):
            for parameter, value in self.host(name).params(site).items():
                there = getattr(site.module, parameter, None) is not None  # a bias may be a new one
                before = site.view(parameter).to(value.dtype) if there else torch.zeros_like(value)
                found[parameter] = found.get(parameter, before) + share * (value - before)
        return found

    def changed(self, site: Site) -> int:
        return min(sum(self.host(name).changed(site) for name in self.names), super().changed(site))

    def bound(self, site: Site) -> int:
        return min(sum(self.host(name).bound(site) for name in self.names), super().bound(site))


class Dense(Mergeable):
    """The same where one of them changes parameters and has no cheaper form."""

    after = Part.after


@dataclass(frozen=True)
class Parallel(Method):
    """Adapters that are on the model, side by side with a weight for each. Merges where all of them do."""

    adapters: Annotated[tuple[str, ...], "names of the adapters, which are on the model"] = ()
    weights: Annotated[tuple[float, ...], "of each; all alike, and 1 together, where none are given"] = ()
    hosts: Annotated[tuple[str, ...], "how the adapters were made, as is stored; given, new ones are made so"] = ()

    family: ClassVar[str] = "hybrid"
    needs_adapters: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self, self.adapters, self.hosts)

    def expression(self) -> str:
        return read(self.hosts[0]).expression() if self.hosts else ""

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, dict[str, Tensor]]:
        if self.hosts:
            return self, {}
        hosts, tensors = hosted(self, self.adapters, adapters, changes=True)
        return replace(self, hosts=hosts, weights=weights(self, self.weights, len(hosts))), tensors

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        shared, at = grown(self, self.hosts, sites, changes=True)
        shares = weights(self, self.weights, len(self.hosts))
        return [*((None, part) for part in shared), *((site, _kind(parts)(parts, shares)) for site, parts in at)]

    def count(self, sites: Sequence[Site]) -> int:
        return sum(read(host).count(sites) for host in self.hosts)


def _kind(parts: Sequence[Part]) -> type[Weighed]:
    """What runs these at one site."""
    if not all("params" in part.verbs() for part in parts):
        return Weighed
    return Mergeable if all({"after"} <= part.verbs() <= {"after", "params"} for part in parts) else Dense
