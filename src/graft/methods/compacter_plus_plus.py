"""Compacter++ (Mahabadi et al. 2021, arXiv 2106.04647): Compacter after the feed-forward network alone.

    Compacter++ = Compacter at "ffn":   y = LN₂(a + A(FFN(a)))

Half of Compacter's adapters, with one set {Aᵢ} for the whole model as there. It is written out, because "+" between
names of methods is their sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from graft.anatomy.site import Site
from graft.method import Activation, Method
from graft.methods.compacter import Compacter


@dataclass(frozen=True)
class CompacterPlusPlus(Method):
    """A bottleneck adapter of low-rank Kronecker sums after the feed-forward network alone."""

    reduction: Annotated[int, "the bottleneck is this many times narrower than the model"] = 32
    n: Annotated[int, "number of Kronecker products; divides the model's width and the bottleneck"] = 4
    k: Annotated[int, "rank of each product's second factor"] = 1
    activation: Annotated[Activation, "non-linearity inside"] = "gelu_new"
    train_layernorm: Annotated[bool, "train the norms too, as in the paper"] = True

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "near"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.methods()  # refuses what Compacter refuses

    def methods(self) -> tuple[Method, ...]:
        return (Compacter(self.reduction, self.n, self.k, self.activation, self.train_layernorm, sites="ffn"),)

    def sizes(self) -> tuple[str, ...]:
        return ("k",)

    def count(self, sites: Sequence[Site]) -> int:
        return self.methods()[0].count(sites)
