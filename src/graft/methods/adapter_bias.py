"""AdapterBias (Fu et al. 2022, arXiv 2205.00305): a shift of every layer's output, by as much as the token asks for.

    FFN(a)_t ← FFN(a)_t + α_t·v,   α_t = g(u_t) = w·u_t + b,   v ∈ R^d

u is what enters the second linear map of the FFN, as in the authors' code; `input="out"` reads what leaves it, as the
counts of the speech benchmark SUPERB need. v = 0 starts as the base, and the first step moves v alone. Departure: in
training the shift passes the base's own dropout, behind which the authors add it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import Refused
from graft.method import Method, Part, kaiming, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Amount(Part):
    """g: how far each token shifts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = kaiming(1, width)
        self.b = nn.Parameter(torch.empty(1).uniform_(-(width**-0.5), width**-0.5))

    def of(self, u: Tensor) -> Tensor:
        """(…, 1) from (…, width)."""
        return F.linear(u, self.w.to(u.dtype), self.b.to(u.dtype))


class Shift(Part):
    """v of one layer, and its g or one that all layers share."""

    def __init__(self, width: int, amount: Amount, shared: bool, reads_out: bool) -> None:
        super().__init__()
        self.v = zeros(width)
        self.reads_out = reads_out
        if shared:
            self.borrow(amount)
        else:
            self.amount = amount

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        amount: Amount = self.lent[0] if "amount" not in self._modules else self.amount
        return y + amount.of(y if self.reads_out else x) * self.v


@dataclass(frozen=True)
class AdapterBias(Method):
    """A trained shift of every feed-forward network's output, scaled for each token by a linear map."""

    input: Annotated[Literal["mid", "out"], "read what enters the second linear map, or what leaves it"] = "mid"
    share_alpha: Annotated[bool, "one linear map for all layers"] = False

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 1e-2

    def expression(self) -> str:
        return "down" if self.input == "mid" else "ffn"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        if experts := [site.name for site in sites if site.batch]:
            raise Refused(
                f"AdapterBias: {experts[0]} is in fused experts, where tokens have no order. Choose input='out'."
            )
        widths = {self._width(site) for site in sites}
        if self.share_alpha and len(widths) > 1:
            raise Refused(
                f"AdapterBias: inputs of {' and '.join(map(str, sorted(widths)))} numbers cannot share one linear map. "
                "Leave share_alpha off."
            )
        if not self.share_alpha:
            return [(site, self._shift(site, Amount(self._width(site)))) for site in sites]
        shared = Amount(self._width(sites[0]))
        return [(None, shared), *((site, self._shift(site, shared)) for site in sites)]

    def count(self, sites: Sequence[Site]) -> int:
        maps = [self._width(site) + 1 for site in sites]
        return sum(site.outputs for site in sites) + (maps[0] if self.share_alpha else sum(maps))

    def _shift(self, site: Site, amount: Amount) -> Part:
        return Shift(site.outputs, amount, self.share_alpha, self.input == "out")

    def _width(self, site: Site) -> int:
        return site.inputs if self.input == "mid" else site.outputs
