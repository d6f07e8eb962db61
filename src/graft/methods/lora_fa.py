"""LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): LoRA whose A stays frozen at random, which saves activations.

    W′ = W + s·B A,   A ∈ R^{r×in} frozen,  B ∈ R^{out×r},  s = α/r   (rank-stabilized: α/√r)

The gradient of B needs A x alone, r numbers a token; that of A would need all of x. Dropout therefore acts on A x: on
x, as in LoRA, it would keep a mask as large as x. With `precondition`, as in the paper's later versions and Hugging
Face PEFT, the gradient of B becomes g (A Aᵀ)⁻¹/s² before the optimizer sees it, so that a step moves s·B A as near to
the gradient of W as frozen rows allow. Stored and served as an ordinary LoRA. It has no trained magnitude, as DoRA has:
the gradient of that needs the site's output, which is as large as x.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Moment, Part, check, kaiming, named, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class FrozenA(Part):
    """A and B at one site; A is a buffer."""

    def __init__(self, site: Site, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.matrix(site).low_rank(site, rank)
        self.A: Tensor
        self.register_buffer("A", kaiming(rank, site.inputs).detach())
        self.B = zeros(site.outputs, rank)
        self.scale, self.dropout = scale, dropout

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        A = self.A.to(self.B.dtype)
        low = F.linear(x, A) if x.is_floating_point() else F.embedding(x, A.T)
        return y + self.scale * F.linear(self.drop(low), self.B)

    def params(self, site: Site) -> dict[str, Tensor]:
        return {site.parameter: site.weight.to(self.B.dtype) + self.scale * (self.B @ self.A)}

    def bound(self, site: Site) -> int:
        return len(self.A)

    def precondition(self) -> None:
        """B's gradient times (A Aᵀ)⁻¹/s², in place."""
        if self.B.grad is not None:
            gram = self.scale**2 * (self.A @ self.A.T)
            self.B.grad.copy_(torch.linalg.solve(gram, self.B.grad.T).T)


@dataclass(frozen=True)
class LoRAFA(Method):
    """LoRA with a frozen A: half the parameters, and no activations kept for A. Stored as a LoRA; merges."""

    rank: Annotated[int, "width of the update"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/rank (alpha/√rank with rslora)"] = 16.0
    dropout: Annotated[float, "dropout on A x, in training"] = 0.0
    rslora: Annotated[bool, "rank-stabilized: scale by alpha/√rank"] = False
    precondition: Annotated[bool, "multiply the gradient of B by (A Aᵀ)⁻¹/s²"] = False
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 16.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")

    def build(self, site: Site) -> Part:
        scale = self.alpha / (self.rank**0.5 if self.rslora else self.rank)
        return FrozenA(site, self.rank, scale, self.dropout)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        if phase == "gradients" and self.precondition:
            for part in parts:
                if isinstance(part, FrozenA):
                    part.precondition()
        return None

    @property
    def reads_gradients(self) -> bool:
        return self.precondition

    def serving(self) -> Method:
        kept = {name: getattr(self, name) for name in ("rank", "alpha", "dropout", "rslora", "sites")}
        return named("lora", {"lora": kept})

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.rank * site.outputs for site in sites)
