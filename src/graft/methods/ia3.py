"""(IA)³ (Liu et al. 2022, arXiv 2205.05638): rescale keys, values and the FFN's inner activation by learned vectors.

    softmax(Q (l_k ⊙ K)ᵀ/√h) (l_v ⊙ V),   (l_ff ⊙ γ(W₁ x)) W₂

At `down` and `o` the vector scales what enters the projection, elsewhere what leaves it. All ones: starts as the base.
Self- and cross-attention alike, as in the paper. `variant="hf"` chooses the sites Hugging Face PEFT chooses for BERT
and RoBERTa (a vector before W_O too); PEFT's other choices are site expressions, "q k v down" for its GPT-2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Part

if TYPE_CHECKING:
    from graft.attach.call import Call

ENTERING = ("down", "o")
SITES = {"paper": "k v down", "hf": "k v o down"}


class ScaleOutput(Part):
    """y ← l ⊙ y: rows of the weight, and the bias, scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.l = nn.Parameter(torch.ones(width))

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y * self.l

    def params(self, site: Site) -> dict[str, Tensor]:
        scaled = {site.parameter: site.weight.to(self.l.dtype) * self.l[:, None]}
        return scaled if site.bias is None else {**scaled, "bias": site.bias.to(self.l.dtype) * self.l}


class ScaleInput(Part):
    """x ← l ⊙ x: columns of the weight scaled, the bias as it was."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.l = nn.Parameter(torch.ones(width))

    def before(self, x: Tensor, site: Site, call: "Call") -> Tensor:
        return x * self.l

    def params(self, site: Site) -> dict[str, Tensor]:
        return {site.parameter: site.weight.to(self.l.dtype) * self.l}


@dataclass(frozen=True)
class IA3(Method):
    """Learned vectors that rescale keys, values and the inner activation of the feed-forward network. Merges."""

    sites: Annotated[str, "which projections; empty: the variant's own"] = ""
    variant: Annotated[Literal["paper", "hf"], "paper: k v down; hf: k v o down, as PEFT does on BERT"] = "paper"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 2e-2

    def expression(self) -> str:
        return self.sites or SITES[self.variant]

    def build(self, site: Site) -> Part:
        return ScaleInput(site.inputs) if site.role in ENTERING else ScaleOutput(site.outputs)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(site.inputs if site.role in ENTERING else site.outputs for site in sites)
