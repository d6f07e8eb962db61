"""PHM adapters (Mahabadi et al. 2021, arXiv 2106.04647; PHM: Zhang et al. 2021, 2102.08597): Kronecker sums.

    A(z) = z + σ(z W_d + b_d) W_u + b_u,   W = Σᵢ Aᵢ ⊗ Bᵢ,   Aᵢ ∈ R^{n×n}, Bᵢ ∈ R^{p/n × q/n},  i = 1…n

A p×q matrix for pq/n + n³ numbers; each has Aᵢ of its own (Compacter shares them). After attention and after the FFN,
before the residual; the norms train too. W is never built: z is read as n groups of p/n.
Starts near the base: A ~ N(0, (1e-4)²), B Glorot-uniform, biases 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from torch import Tensor

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.kronecker import glorot, kronecker
from graft.method import ACTIVATIONS, Activation, Method, Part, StandIn, check, normal, positive, reduced, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class HypercomplexSeries(Part):
    """One bottleneck of two Kronecker sums on what leaves a sub-layer."""

    def __init__(self, width: int, bottleneck: int, n: int, activation: Activation) -> None:
        super().__init__()
        self.down_A, self.down_B = normal(n, n, n, std=1e-4), glorot(n, width // n, bottleneck // n)
        self.up_A, self.up_B = normal(n, n, n, std=1e-4), glorot(n, bottleneck // n, width // n)
        self.down_bias, self.up_bias = zeros(bottleneck), zeros(width)
        self.activation = activation

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        inner = ACTIVATIONS[self.activation](kronecker(y, self.down_A, self.down_B) + self.down_bias)
        return y + kronecker(inner, self.up_A, self.up_B) + self.up_bias


@dataclass(frozen=True)
class PHMAdapter(Method):
    """A bottleneck adapter whose matrices are sums of Kronecker products, after attention and after the FFN."""

    reduction: Annotated[int, "the bottleneck is this many times narrower than the model"] = 32
    n: Annotated[int, "number of Kronecker products; divides the model's width and the bottleneck"] = 4
    activation: Annotated[Activation, "non-linearity inside"] = "gelu_new"
    train_layernorm: Annotated[bool, "train the norms too, as in the paper"] = True
    sites: Annotated[str, "which sub-layers; the paper leaves cross-attention out"] = "self: attention; ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "near"

    def __post_init__(self) -> None:
        super().__post_init__()
        check("norm" not in self.sites, self, "sites", "must leave norms to train_layernorm", "Try 'attention ffn'.")
        positive(self, "reduction", "n")

    def expression(self) -> str:
        return f"{self.sites}; norm" if self.train_layernorm else self.sites

    def build(self, site: Site) -> Part:
        if site.role == "norm":
            return StandIn(site)
        return HypercomplexSeries(site.outputs, self._bottleneck(site), self.n, self.activation)

    def sizes(self) -> tuple[str, ...]:
        return ("reduction",)

    def count(self, sites: Sequence[Site]) -> int:
        norms = sum(site.outputs * (1 + (site.bias is not None)) for site in sites if site.role == "norm")
        ends = [(site.outputs, self._bottleneck(site)) for site in sites if site.role != "norm"]
        return norms + sum(2 * d * r // self.n + 2 * self.n**3 + r + d for d, r in ends)

    def _bottleneck(self, site: Site) -> int:
        width = reduced(self, site.outputs, self.n)
        if width % self.n or site.outputs % self.n:
            raise BadInput(
                f"PHMAdapter: n={self.n} has to divide the width {site.outputs} and the bottleneck {width}, which is "
                f"the width over reduction {self.reduction}. Choose an n that does, or another reduction."
            )
        return width
