"""Pfeiffer adapters (Pfeiffer et al. 2020, arXiv 2005.00247, 2007.07779): one bottleneck per block, after the FFN.

    z = LN₂(o + a),   o′ = o + σ(z W_d + b_d) W_u + b_u,   y = LN₂(o′ + a),   o = FFN(a)

On post-norm models the pretrained LN₂ is applied twice, as AdapterHub does it; on pre-norm models z = o + a.
Weights start N(0, 0.02²), so the start is not the base; `init="zero_up"` starts W_u at zero and is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import ACTIVATIONS, Activation, Method, Part, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class AfterNorm(Part):
    """One bottleneck that reads the normed sum of a sub-layer's output and the residual stream."""

    reads_residual = True

    def __init__(self, width: int, bottleneck: int, activation: Activation, init: Literal["bert", "zero_up"]) -> None:
        super().__init__()
        self.down = normal(bottleneck, width, std=0.02)
        self.down_bias = zeros(bottleneck)
        self.up = normal(width, bottleneck, std=0.02) if init == "bert" else zeros(width, bottleneck)
        self.up_bias = zeros(width)
        self.activation = activation

    def reads(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return call.normed(site, y)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y + self.adapt(self.reads(x, y, site, call))

    def adapt(self, z: Tensor) -> Tensor:
        """The bottleneck: what it adds, of what it reads."""
        return F.linear(ACTIVATIONS[self.activation](F.linear(z, self.down, self.down_bias)), self.up, self.up_bias)


@dataclass(frozen=True)
class Pfeiffer(Method):
    """One bottleneck adapter per block, after the feed-forward network, sharing its layer norm."""

    bottleneck: Annotated[int, "width of the bottleneck"] = 48
    activation: Annotated[Activation, "non-linearity inside"] = "relu"
    init: Annotated[Literal["bert", "zero_up"], "bert: N(0, 0.02²) as published; zero_up: start as the base"] = "bert"
    sites: Annotated[str, "which sub-layers"] = "ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bottleneck")

    def build(self, site: Site) -> Part:
        return AfterNorm(site.outputs, self.bottleneck, self.activation, self.init)

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(2 * site.outputs * self.bottleneck + self.bottleneck + site.outputs for site in sites)
