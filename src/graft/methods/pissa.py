"""PiSSA (Meng et al. 2024, arXiv 2404.02948): train the principal singular directions of a weight, freeze the rest.

    W′ = W + s·(B A − B₀ A₀),   B₀ = U_r (S_r/s)^½,  A₀ = (S_r/s)^½ V_rᵀ,  W = U S Vᵀ
    s = α/r   (rank-stabilized: α/√r)

The paper replaces the base by W − s·B₀ A₀; here the base stays what it is, so that it starts as the base exactly. What
trains is how far A and B are from A₀ and B₀: the same steps, but half precision keeps small ones, and weight decay
draws towards the base. There is no dropout, with which it would not start as the base. It is stored and served as an
ordinary LoRA of rank 2r, B′ = [B − B₀, B₀] and A′ = [A; A − A₀], which is the paper's B A − B₀ A₀ without cancellation.
It has no trained magnitude, as DoRA has: what is stored would not be a LoRA.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.method import Method, Part, check, named, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

ITERATIONS = 64  # at most: where so many are not enough, the exact decomposition is cheaper


class Principal(Part):
    """A₀ and B₀ at one site, and how far from them A and B are."""

    def __init__(self, site: Site, rank: int, scale: float, iterations: int) -> None:
        super().__init__()
        self.matrix(site)
        if 2 * rank > min(site.inputs, site.outputs):
            raise BadInput(
                f"rank {rank} at {site.name}, a {site.outputs} by {site.inputs} matrix: it is stored as a LoRA of "
                f"twice the rank, so choose at most {min(site.inputs, site.outputs) // 2}."
            )
        if not site.weight.is_floating_point():
            raise Refused(f"the weight at {site.name} is quantized: PiSSA needs the singular vectors of the original.")
        W = site.weight.detach().float()  # there is no decomposition in half precision
        if iterations:
            U, S, V = torch.svd_lowrank(W, 2 * rank, niter=iterations)  # wider than needed, or the last ones are poor
        else:
            U, S, Vt = torch.linalg.svd(W, full_matrices=False)
            V = Vt.T
        root = (S[:rank] / scale).sqrt()
        self.A0: Tensor
        self.B0: Tensor
        self.register_buffer("A0", (V[:, :rank] * root).T.contiguous())
        self.register_buffer("B0", (U[:, :rank] * root).contiguous())
        self.dA, self.dB = zeros(rank, site.inputs), zeros(site.outputs, rank)
        self.scale = scale

    def pair(self) -> tuple[Tensor, Tensor]:
        """A′ (2r, in) and B′ (out, 2r) of the update as one low-rank product."""
        A0, B0 = self.A0.to(self.dA.dtype), self.B0.to(self.dB.dtype)
        return torch.cat((A0 + self.dA, self.dA)), torch.cat((self.dB, B0), 1)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        A, B = self.pair()
        low = F.linear(x, A) if x.is_floating_point() else F.embedding(x, A.T)
        return y + self.scale * F.linear(low, B)

    def params(self, site: Site) -> dict[str, Tensor]:
        A, B = self.pair()
        return {site.parameter: site.weight.to(A.dtype) + self.scale * (B @ A)}

    def bound(self, site: Site) -> int:
        return 2 * len(self.A0)


class Converted(Part):
    """The pair of an ordinary LoRA."""

    def __init__(self, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)


@dataclass(frozen=True)
class PiSSA(Method):
    """LoRA that starts from the weight's principal singular directions. Stored as a LoRA of twice the rank; merges."""

    rank: Annotated[int, "number of principal directions"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/rank (alpha/√rank with rslora); usually the rank"] = 8.0
    rslora: Annotated[bool, "rank-stabilized: scale by alpha/√rank"] = False
    iterations: Annotated[int, "of a randomized decomposition, 4 to 16; 0: the exact one"] = 0
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.alpha > 0, self, "alpha", "must be above 0: its root is taken", f"Try {self.rank}.")
        few = 0 <= self.iterations <= ITERATIONS
        check(few, self, "iterations", f"must be at least 0 and at most {ITERATIONS}", "Try 4, or 0 for the exact one.")

    def build(self, site: Site) -> Part:
        scale = self.alpha / (self.rank**0.5 if self.rslora else self.rank)
        return Principal(site, self.rank, scale, self.iterations)

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        with torch.no_grad():
            return {key: Converted(*part.pair()) for key, part in parts.items() if isinstance(part, Principal)}

    def serving(self) -> Method:
        alpha = self.alpha * (2**0.5 if self.rslora else 2)  # s stays what it is at twice the rank
        kept = {"rank": 2 * self.rank, "alpha": alpha, "rslora": self.rslora, "sites": self.sites}
        return named("lora", {"lora": kept})

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.rank * (site.inputs + site.outputs) for site in sites)
