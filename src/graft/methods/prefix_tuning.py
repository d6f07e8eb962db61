"""Prefix tuning (Li & Liang 2021, arXiv 2101.00190): trained keys and values in front of every attention's own.

    K′ = [P_k; K],  V′ = [P_v; V],   P_k, P_v ∈ R^{n × key heads × width}

Self-attention of encoder and decoder and cross-attention each have their own. With `reparameterize` a set is computed,
[P_k, P_v]₁…L = tanh(E W₁ + b₁) W₂ + b₂, and the deployed form drops the network. Keys have no position of their own and
every query sees them; not even P = 0 is the base.
`variant="hf"`: in an encoder-decoder only decoder self-attention gets keys, layer i reading slot 2i mod L, as in PEFT.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, kaiming, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

KeysValues = tuple[Tensor, Tensor, Tensor | None]


class Prefix(Part):
    """n keys and n values of one attention, flat."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = nn.Parameter(keys), nn.Parameter(values)
        self.length = len(keys)

    def keys_values(self, site: Site, call: "Call") -> KeysValues:
        return self.keys, self.values, None


class Network(Part):
    """The reparameterization of one set of prefixes: E, W₁, b₁, W₂, b₂, shared by the set's layers."""

    rate = 0.01

    def __init__(self, tokens: int, width: int, hidden: int, layers: int, heads: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.E = normal(tokens, width, std=1.0)
        self.W1, self.b1 = kaiming(hidden, width), zeros(hidden)
        self.W2, self.b2 = kaiming(layers * 2 * heads[0] * heads[1], hidden), zeros(layers * 2 * heads[0] * heads[1])

    def layer(self, index: int) -> Tensor:
        """Keys and values of one layer, (2, n, key heads, width)."""
        size = 2 * self.heads[0] * self.heads[1]
        rows = slice(index * size, (index + 1) * size)
        out = F.linear(torch.tanh(F.linear(self.E, self.W1, self.b1)), self.W2[rows], self.b2[rows])
        return out.unflatten(-1, (2, *self.heads)).movedim(1, 0)


class Slots(Part):
    """Flat prefixes of L layers that layers read by slot, as PEFT lays them out for encoder-decoders."""

    def __init__(self, tokens: int, layers: int, heads: tuple[int, int]) -> None:
        super().__init__()
        self.P = normal(layers, 2, tokens, *heads, std=0.02)

    def layer(self, index: int) -> Tensor:
        """Keys and values in one slot, (2, n, key heads, width)."""
        return self.P[index]


class Borrowed(Part):
    """One attention's keys and values, read from a shared part."""

    def __init__(self, shared: Network | Slots, index: int, tokens: int) -> None:
        super().__init__()
        self.borrow(shared)
        self.index, self.length = index, tokens

    def keys_values(self, site: Site, call: "Call") -> KeysValues:
        keys, values = self.lent[0].layer(self.index)
        return keys, values, None


@dataclass(frozen=True)
class PrefixTuning(Method):
    """Trained keys and values in front of every attention's own."""

    tokens: Annotated[int, "number of virtual keys"] = 20
    reparameterize: Annotated[bool, "compute the prefixes with a small network while training"] = False
    hidden: Annotated[int, "width of that network"] = 512
    variant: Annotated[Literal["paper", "hf"], "hf: an encoder-decoder's decoder only, slots as in PEFT"] = "paper"
    sites: Annotated[str, "which attentions"] = "attention"

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 6e-2
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens", "hidden")
        if self.variant == "hf" and self.reparameterize:
            raise BadInput("PrefixTuning: variant='hf' is PEFT's flat prefix. Leave reparameterize off.")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        grown: list[tuple[Site | None, Part]] = []
        for group in self._sets(sites):
            layers, heads = len(group), _heads(group[0])
            if self._slotted(sites):
                slots = Slots(self.tokens, layers, heads)
                grown.append((None, slots))
                grown += [(site, Borrowed(slots, 2 * i % layers, self.tokens)) for i, site in enumerate(group)]
            elif self.reparameterize:
                network = Network(self.tokens, group[0].inputs, self.hidden, layers, heads)
                grown.append((None, network))
                grown += [(site, Borrowed(network, i, self.tokens)) for i, site in enumerate(group)]
            else:
                grown += [(site, Prefix(*normal(2, self.tokens, *_heads(site), std=0.02).data)) for site in group]
        return grown

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        if not self.reparameterize:
            return parts
        with torch.no_grad():
            return {
                key: Prefix(*part.lent[0].layer(part.index).clone())
                for key, part in parts.items()
                if isinstance(part, Borrowed)
            }

    def serving(self) -> Method:
        return replace(self, reparameterize=False)

    def sizes(self) -> tuple[str, ...]:
        return ("tokens", "hidden") if self.reparameterize else ("tokens",)

    def count(self, sites: Sequence[Site]) -> int:
        if self.reparameterize:
            return sum(self._network(group) for group in self._sets(sites))
        return sum(2 * self.tokens * _width(site) for group in self._sets(sites) for site in group)

    def _network(self, group: Sequence[Site]) -> int:
        d, m, out = group[0].inputs, self.hidden, 2 * len(group) * _width(group[0])
        return self.tokens * d + d * m + m + out * m + out

    def _slotted(self, sites: Sequence[Site]) -> bool:
        return self.variant == "hf" and len({site.stack for site in sites}) > 1

    def _sets(self, sites: Sequence[Site]) -> list[list[Site]]:
        """Sites that make one set: encoder self-, decoder self- and cross-attention apart."""
        sets: dict[tuple[str, bool], list[Site]] = {}
        for site in sites:
            if not self._slotted(sites) or (site.stack == "decoder" and not site.cross):
                sets.setdefault((site.stack, site.cross), []).append(site)
        return list(sets.values())


def _heads(site: Site) -> tuple[int, int]:
    heads = site.key_heads()
    return heads.key, heads.width


def _width(site: Site) -> int:
    return _heads(site)[0] * _heads(site)[1]
