"""Parallel and scaled parallel adapters (He et al. 2021, arXiv 2110.04366): a bottleneck beside a sub-layer.

    FFN(a) ← FFN(a) + s·(ReLU(u W_d + b_d) W_u + b_u)

u is the residual stream at the sub-layer (on post-norm models that is its input; on pre-norm models the un-normed
stream, as in the authors' code); `input="normed"` feeds what the sub-layer itself is fed. W_u = 0 starts as the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Part, check, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Beside(Part):
    """One bottleneck from a sub-layer's input to its output."""

    def __init__(
        self, site: Site, bottleneck: int, scale: float | nn.Parameter, residual: bool, dropout: float
    ) -> None:
        super().__init__()
        self.down = kaiming(bottleneck, site.inputs)
        self.down_bias = zeros(bottleneck)
        self.up = zeros(site.outputs, bottleneck)
        self.up_bias = zeros(site.outputs)
        self.scale = scale
        self.reads_residual, self.dropout = residual, dropout

    def reads(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return call.residual(site) if self.reads_residual else x

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        u = self.reads(x, y, site, call)
        inner = self.drop(F.relu(F.linear(u, self.down, self.down_bias)))
        return y + self.scale * F.linear(inner, self.up, self.up_bias)


@dataclass(frozen=True)
class ParallelAdapter(Method):
    """A bottleneck adapter beside the feed-forward network (or attention), its output scaled."""

    bottleneck: Annotated[int, "width of the bottleneck"] = 64
    scale: Annotated[float, "factor on the adapter's output; the start of it when learned"] = 4.0
    learned_scale: Annotated[bool, "train the scale, one for each adapter, starting at 1"] = False
    input: Annotated[Literal["residual", "normed"], "read the residual stream, or what the sub-layer reads"] = (
        "residual"
    )
    dropout: Annotated[float, "dropout inside the bottleneck, in training"] = 0.0
    sites: Annotated[str, "which sub-layers: ffn, attention, or both"] = "ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bottleneck")
        check(self.scale != 0, self, "scale", "must not be 0, which would leave the base as it is", "Try 4.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")

    def build(self, site: Site) -> Part:
        scale = nn.Parameter(torch.ones(1)) if self.learned_scale else self.scale
        return Beside(site, self.bottleneck, scale, self.input == "residual", self.dropout)

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        r = self.bottleneck
        return sum((s.inputs + s.outputs) * r + r + s.outputs + self.learned_scale for s in sites)
