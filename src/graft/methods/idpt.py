"""Instance-dependent prompt tuning: virtual tokens in front of every input, computed from it.

    ipl    P(x)_i = ρ_i p_i,   ρ_i = σ(mean_t q_i·k_t / √s),   q_i = p_i W_q + b_q,  k_t = E(x_t) W_k + b_k
    idpg   P(x) = W_u ReLU(W_d M(x) + b_d) + b_u,   M(x): the mean of what the frozen stack makes of x

IPL (Jin et al. 2022, arXiv 2201.07126) weights tokens of its own, p = MLP(P) with a ReLU, by how much they have to do
with the input's embeddings; the MLP is dropped when deployed. IDPG (Wu et al. 2022, arXiv 2204.04497) generates tokens
from a sentence representation, which costs a second forward pass through the frozen stack, without a graph. An
encoder-decoder gets them in the encoder only. Never starts as the base.

Surveys name "IDPT" without saying which of the two it is. Tokens made of the whole row would tell each token of a
decoder what stands behind it, so decoders are refused. IDPG's W_d and W_u are full, or sums of n Kronecker products
(`n` above 1), drawn so that their entries have Glorot's variance. Departure: means leave out padding, which IPL's code
counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.kronecker import glorot, kronecker
from graft.method import Method, Part, kaiming, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Relevant(Part):
    """IPL's n virtual tokens, through an MLP or flat, and the two projections that compare them with a row."""

    reads_row = "embeds"

    def __init__(self, P: Tensor, hidden: int, network: bool) -> None:
        super().__init__()
        self.P, self.length, self.network = nn.Parameter(P), len(P), network
        d = P.shape[1]
        self.W_q, self.b_q, self.W_k, self.b_k = kaiming(hidden, d), zeros(hidden), kaiming(hidden, d), zeros(hidden)
        self.rate = 0.01 if network else 1 / 3
        if network:
            self.W_0, self.b_0, self.W_1, self.b_1 = kaiming(d, d), zeros(d), kaiming(d, d), zeros(d)

    def tokens(self, call: "Call") -> Tensor:
        assert call.embeds is not None
        p = self.flat()
        # The mean of products with q is the product with the mean.
        k = call.mean(F.linear(call.embeds, self.W_k, self.b_k))
        relevance = torch.sigmoid(k @ F.linear(p, self.W_q, self.b_q).T * k.shape[1] ** -0.5)
        return relevance[..., None] * p

    def flat(self) -> Tensor:
        """p, (n, d)."""
        if not self.network:
            return self.P
        return F.linear(F.relu(F.linear(self.P, self.W_0, self.b_0)), self.W_1, self.b_1)

    def deployed(self) -> "Relevant":
        """Without the MLP."""
        part = Relevant(self.flat(), len(self.b_q), network=False)
        part.W_q, part.b_q, part.W_k, part.b_k = self.W_q, self.b_q, self.W_k, self.b_k
        return part


class Generated(Part):
    """IDPG's n virtual tokens: a bottleneck from a sentence representation to all of them."""

    reads_row = "states"
    rate = 1 / 30

    def __init__(self, tokens: int, width: int, bottleneck: int, states: int) -> None:
        super().__init__()
        self.length = tokens
        self.down, self.down_bias = kaiming(bottleneck, states), zeros(bottleneck)
        self.up, self.up_bias = kaiming(tokens, width, bottleneck), nn.Parameter(torch.rand(tokens, width) - 0.5)

    def tokens(self, call: "Call") -> Tensor:
        assert call.states is not None
        inner = F.relu(F.linear(call.mean(call.states), self.down, self.down_bias))
        return torch.einsum("bh,ndh->bnd", inner, self.up) + self.up_bias


class KroneckerGenerated(Part):
    """The same through matrices that are sums of n Kronecker products."""

    reads_row = "states"
    rate = 1 / 30

    def __init__(self, tokens: int, width: int, bottleneck: int, states: int, n: int) -> None:
        super().__init__()
        self.length, size = tokens, tokens * width
        self.down_A, self.down_B = normal(n, n, n, std=1 / n), glorot(n, states // n, bottleneck // n)
        self.up_A, self.up_B = normal(n, n, n, std=1 / n), glorot(n, bottleneck // n, size // n)
        self.down_bias, self.up_bias = zeros(bottleneck), nn.Parameter(torch.rand(tokens, width) - 0.5)

    def tokens(self, call: "Call") -> Tensor:
        assert call.states is not None
        inner = F.relu(kronecker(call.mean(call.states), self.down_A, self.down_B) + self.down_bias)
        return kronecker(inner, self.up_A, self.up_B).view(len(inner), *self.up_bias.shape) + self.up_bias


@dataclass(frozen=True)
class IDPT(Method):
    """Virtual tokens that depend on the input they stand in front of. For encoders and encoder-decoders."""

    tokens: Annotated[int, "number of virtual tokens"] = 10
    variant: Annotated[
        Literal["ipl", "idpg"], "ipl: weighted by relevance; idpg: generated from a sentence's states"
    ] = "ipl"
    hidden: Annotated[int, "ipl: width in which tokens and input are compared"] = 64
    reparameterize: Annotated[bool, "ipl: compute the tokens with a small network while training"] = True
    bottleneck: Annotated[int, "idpg: width of the generator"] = 16
    n: Annotated[int, "idpg: Kronecker products that the generator's matrices are sums of; 1: full matrices"] = 1

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 3e-1
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens", "hidden", "bottleneck", "n")

    def expression(self) -> str:
        return "embed" if self.variant == "ipl" else "embed stack"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        embed = _first(sites, "embed")
        if self.variant == "idpg":
            states = _first(sites, "stack").outputs
            return [(embed, self._generator(embed.outputs, states))]
        # What enters a network may be large; what stands among words begins as prompts do.
        shape = (self.tokens, embed.outputs)
        P = normal(*shape, std=1.0).data if self.reparameterize else torch.rand(*shape) - 0.5
        return [(embed, Relevant(P, self.hidden, self.reparameterize))]

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        with torch.no_grad():
            return {key: p.deployed() if isinstance(p, Relevant) else p for key, p in parts.items()}

    def serving(self) -> Method:
        return replace(self, reparameterize=False) if self.variant == "ipl" else self

    def sizes(self) -> tuple[str, ...]:
        return ("tokens", "hidden") if self.variant == "ipl" else ("tokens", "bottleneck")

    def count(self, sites: Sequence[Site]) -> int:
        size, h = self.tokens * (d := _first(sites, "embed").outputs), self.bottleneck
        if self.variant == "idpg":
            matrices = (_first(sites, "stack").outputs + size) * h // self.n
            return matrices + h + size + (2 * self.n**3 if self.n > 1 else 0)
        return size + 2 * (d + 1) * self.hidden + self.reparameterize * 2 * (d + 1) * d

    def _generator(self, width: int, states: int) -> Part:
        if self.n == 1:
            return Generated(self.tokens, width, self.bottleneck, states)
        if states % self.n or self.bottleneck % self.n or self.tokens * width % self.n:
            raise BadInput(
                f"IDPT: n={self.n} has to divide the model's width {states}, the bottleneck {self.bottleneck} and the "
                f"{self.tokens} tokens of width {width} together. Choose an n that does, or n=1."
            )
        return KroneckerGenerated(self.tokens, width, self.bottleneck, states, self.n)


def _first(sites: Sequence[Site], role: str) -> Site:
    return next(site for site in sites if site.role == role)
