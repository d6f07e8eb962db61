"""Low-rank adapters (Mahabadi et al. 2021, arXiv 2106.04647): series adapters whose matrices are of low rank.

    A(z) = z + σ(z W_d + b_d) W_u + b_u,   W = S T,   S ∈ R^{p×k}, T ∈ R^{k×q}

The paper's own yardstick for Compacter: k = 1 costs as much. After attention and after the FFN, before the residual;
the norms train too. S and T start Glorot-uniform and biases 0, so the start is not the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import ACTIVATIONS, Activation, Method, Part, StandIn, check, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class LowRankSeries(Part):
    """One bottleneck of four thin matrices on what leaves a sub-layer."""

    def __init__(self, width: int, bottleneck: int, rank: int, activation: Activation) -> None:
        super().__init__()
        self.down_s, self.down_t = _glorot(width, rank), _glorot(rank, bottleneck)
        self.up_s, self.up_t = _glorot(bottleneck, rank), _glorot(rank, width)
        self.down_bias, self.up_bias = zeros(bottleneck), zeros(width)
        self.activation = activation

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        inner = ACTIVATIONS[self.activation](F.linear(y @ self.down_s, self.down_t.T, self.down_bias))
        return y + F.linear(inner @ self.up_s, self.up_t.T, self.up_bias)


@dataclass(frozen=True)
class LowRankAdapter(Method):
    """A bottleneck adapter of low-rank matrices after attention and after the feed-forward network."""

    reduction: Annotated[int, "the bottleneck is this many times narrower than the model"] = 32
    rank: Annotated[int, "rank of each matrix"] = 1
    activation: Annotated[Activation, "non-linearity inside"] = "gelu_new"
    train_layernorm: Annotated[bool, "train the norms too, as in the paper"] = True
    sites: Annotated[str, "which sub-layers; the paper leaves cross-attention out"] = "self: attention; ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        check("norm" not in self.sites, self, "sites", "must leave norms to train_layernorm", "Try 'attention ffn'.")
        positive(self, "reduction", "rank")

    def expression(self) -> str:
        return f"{self.sites}; norm" if self.train_layernorm else self.sites

    def build(self, site: Site) -> Part:
        if site.role == "norm":
            return StandIn(site)
        return LowRankSeries(site.outputs, self._bottleneck(site), self.rank, self.activation)

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        norms = sum(site.outputs * (1 + (site.bias is not None)) for site in sites if site.role == "norm")
        ends = sum(site.outputs + self._bottleneck(site) for site in sites if site.role != "norm")
        return norms + (2 * self.rank + 1) * ends

    def _bottleneck(self, site: Site) -> int:
        width = site.outputs // self.reduction
        if width < self.rank:
            most = site.outputs // self.rank
            raise BadInput(
                f"LowRankAdapter: reduction {self.reduction} leaves {width} of the width {site.outputs}, and rank "
                f"{self.rank} needs at least as many. Choose a "
                + (f"reduction of at most {most}." if most else f"rank of at most {width}.")
            )
        return width


def _glorot(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(*shape)))
