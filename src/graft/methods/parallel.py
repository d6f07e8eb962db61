"""Adapters side by side: each given the same, and what they add is weighted and added up.

    y ← y + Σₙ wₙ zₙ,   zₙ = what adapter n adds to y alone

Of LoRAs it is Σ wₙ Bₙ Aₙ, task arithmetic (Ilharco et al. 2023, arXiv 2212.04089) and LoraHub (arXiv 2307.13269); of
bottlenecks, an ensemble at every sub-layer; a negative weight takes a skill away.

The adapters are on the model, and named; what is attached has copies of them, which train on together, and is saved
and loaded with all of them (`hosts` says how they were made). It merges where they all do. AdapterHub's "parallel", one
adapter for each copy of the input, is `graft.use(model, [...])` with a name for each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

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

    def params(self, site: Site) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for share, name in zip(self.shares, self.names, strict=True):
            for parameter, value in getattr(self, name).params(site).items():
                before = site.view(parameter).to(value.dtype)
                found[parameter] = found.get(parameter, before) + share * (value - before)
        return found

    def bound(self, site: Site) -> int:
        return min(sum(getattr(self, name).bound(site) for name in self.names), super().bound(site))


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
        check_names(self, self.adapters)

    def expression(self) -> str:
        return read(self.hosts[0]).expression() if self.hosts else ""

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, dict[str, Tensor]]:
        if self.hosts:
            return self, {}
        hosts, tensors = hosted(self, self.adapters, adapters)
        return replace(self, hosts=hosts, weights=weights(self, self.weights, len(hosts))), tensors

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        shared, at = grown(self, self.hosts, sites)
        shares = weights(self, self.weights, len(self.hosts))
        grown_here: list[tuple[Site | None, Part]] = [(None, part) for part in shared]
        for site in sites:
            merges = all("params" in part.verbs() for part in at[site.name])
            grown_here.append((site, (Mergeable if merges else Weighed)(at[site.name], shares)))
        return grown_here

    def count(self, sites: Sequence[Site]) -> int:
        return sum(read(host).count(sites) for host in self.hosts)
