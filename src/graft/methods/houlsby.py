"""Series adapters (Houlsby et al. 2019, arXiv 1902.00751): a bottleneck after attention and after the FFN.

    A(z) = z + σ(z W_d + b_d) W_u + b_u,   a = LN₁(x + A₁(Attn(x))),   y = LN₂(a + A₂(FFN(a)))

Starts near the base: weights are truncated normal with σ = 1e-3 as in the authors' code (the paper discusses 1e-2) and
biases 0. The layer norms train too, as in the paper; `train_layernorm=False` leaves them as AdapterHub does.
With `after_norm` what is added to z passes a layer norm of its own first, as in HyperFormer, whose frozen form this is;
its gain starts at the same σ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import ACTIVATIONS, Activation, Method, Part, StandIn, check, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Series(Part):
    """One bottleneck on what leaves a sub-layer, before dropout, residual and norm."""

    def __init__(self, width: int, bottleneck: int, activation: Activation, std: float, norm: bool = False) -> None:
        super().__init__()
        self.down = _truncated(bottleneck, width, std)
        self.down_bias = zeros(bottleneck)
        self.up = _truncated(width, bottleneck, std)
        self.up_bias = zeros(width)
        self.activation, self.norm = activation, norm
        if norm:
            self.gain, self.shift = nn.Parameter(torch.full((width,), std)), zeros(width)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        inner = ACTIVATIONS[self.activation](F.linear(y, self.down, self.down_bias))
        added = F.linear(inner, self.up, self.up_bias)
        return y + (F.layer_norm(added, added.shape[-1:], self.gain, self.shift) if self.norm else added)


def _truncated(out: int, width: int, std: float) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(out, width), std=std, a=-2 * std, b=2 * std))


@dataclass(frozen=True)
class Houlsby(Method):
    """A bottleneck adapter after attention and after the feed-forward network of every block."""

    bottleneck: Annotated[int, "width of the bottleneck"] = 64
    activation: Annotated[Activation, "non-linearity inside"] = "gelu"
    std: Annotated[float, "standard deviation of the initial weights"] = 1e-3
    train_layernorm: Annotated[bool, "train the layer norms too, as in the paper"] = True
    after_norm: Annotated[bool, "a layer norm on what an adapter adds, as in HyperFormer"] = False
    sites: Annotated[str, "which sub-layers"] = "attention ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "near"

    def __post_init__(self) -> None:
        super().__post_init__()
        check("norm" not in self.sites, self, "sites", "must leave norms to train_layernorm", "Try 'attention ffn'.")
        positive(self, "bottleneck")
        check(self.std > 0, self, "std", "must be above 0", "Try 0.001.")

    def expression(self) -> str:
        return f"{self.sites}; norm" if self.train_layernorm else self.sites

    def build(self, site: Site) -> Part:
        if site.role == "norm":
            return StandIn(site)
        return Series(site.outputs, self.bottleneck, self.activation, self.std, self.after_norm)

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        norms = sum(site.outputs * (1 + (site.bias is not None)) for site in sites if site.role == "norm")
        r, widths = self.bottleneck, [site.outputs for site in sites if site.role != "norm"]
        return norms + sum(2 * d * r + r + d + 2 * d * self.after_norm for d in widths)
