"""BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): train the biases and nothing else.

    y = W x + b′,   b′ starts as b

Biases of linear layers and layer norms inside the stack (the embedding's norm included; a pooler is not). Where a
linear layer has no bias (T5, Llama) a zero bias is created, and `adapter.remarks` says so; such an adapter cannot be
merged, because the model has no place for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Part

if TYPE_CHECKING:
    from graft.attach.call import Call


class Bias(Part):
    """A site's bias, trained through a copy."""

    replaces = ("bias",)

    def __init__(self, site: Site) -> None:
        super().__init__()
        bias = site.bias
        self.bias = nn.Parameter(torch.zeros(site.outputs) if bias is None else bias.detach().clone().float())

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y + (self.bias if site.bias is None else self.bias - site.bias)

    def params(self, site: Site) -> dict[str, Tensor]:
        return {"bias": self.bias}


@dataclass(frozen=True)
class BitFit(Method):
    """Train every bias of the stack. Merges where the model has the biases."""

    sites: Annotated[str, "whose biases"] = "all-linear norm"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 6e-3

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        return [(site, Bias(site)) for site in sites if _has_or_gets(site)]

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        made = [site for site in sites if _has_or_gets(site) and site.bias is None]
        if not made:
            return ()
        return (f"created zero biases at {len(made)} sites that have none ({made[0].name}, ...): serve it attached",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(site.outputs for site in sites if _has_or_gets(site))


def _has_or_gets(site: Site) -> bool:
    """A norm without a bias is left alone: an RMS norm has nowhere in its formula for one."""
    return site.bias is not None or (site.role != "norm" and not site.batch)
