"""AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247): several trained adapters, mixed by an attention over them.

    FFN(a) ← FFN(a) + Σₙ αₙ zₙ V,   α = softmaxₙ((q Q + b_Q)·(zₙ K + b_K)),   Q, K, V ∈ R^{d×d}
    loss + 0.01 Σ ‖I − V‖²

zₙ is what adapter n adds, and q what the adapters read, as in AdapterHub: LN₂(FFN(a) + a) for those that read it, else
FFN(a). Q and K start N(0, 0.02²), V as the identity with 1e-6 beside its diagonal; scores are not divided by √d.
Whoever trains by a loop of their own adds `during("loss", …)` to the loss.

The adapters are on the model, and named. A fusion has frozen copies of them: once attached it needs them no more, and
it is saved and loaded with all that it fuses (`hosts` says how they were made). Nothing merges: α depends on the token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.hosts import Hosting, check_names, grown, hosted
from graft.method import Method, Moment, Part, check, normal, zeros
from graft.spelling import read

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter
    from graft.attach.call import Call

BESIDE = 1e-6  # the start of V off its diagonal


class Fused(Hosting):
    """The adapters of one site, and the attention over what they add."""

    def __init__(self, width: int, adapters: Sequence[Part]) -> None:
        super().__init__(adapters)
        self.requires_grad_(False)
        self.whole = False  # what trains is its own
        self.Q, self.K = normal(width, width, std=0.02), normal(width, width, std=0.02)
        self.b_Q, self.b_K = zeros(width), zeros(width)
        self.V = nn.Parameter(torch.full((width, width), BESIDE).fill_diagonal_(1.0))

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        q = call.normed(site, y) if self.reads_residual else y
        z = torch.stack(self.added(x, y, site, call), -2)
        scores = (F.linear(q, self.Q, self.b_Q)[..., None, :] * F.linear(z, self.K, self.b_K)).sum(-1)
        return y + F.linear((scores.softmax(-1)[..., None] * z).sum(-2), self.V)


@dataclass(frozen=True)
class AdapterFusion(Method):
    """An attention over adapters that are on the model, which stay as they are."""

    adapters: Annotated[tuple[str, ...], "names of the adapters, which are on the model"] = ()
    penalty: Annotated[float, "factor of the regularizer, which holds V near the identity"] = 0.01
    hosts: Annotated[tuple[str, ...], "how the adapters were made, as is stored; given, new ones are made so"] = ()

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 5e-5
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"
    needs_adapters: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.penalty >= 0, self, "penalty", "must be at least 0", "Try 0.01.")
        check_names(self, self.adapters, self.hosts)

    def expression(self) -> str:
        return read(self.hosts[0]).expression() if self.hosts else ""

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, dict[str, Tensor]]:
        if self.hosts:
            return self, {}
        hosts, tensors = hosted(self, self.adapters, adapters)
        return replace(self, hosts=hosts), tensors

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        shared, at = grown(self, self.hosts, sites)
        return [*((None, part.requires_grad_(False)) for part in shared),
                *((site, Fused(site.outputs, parts)) for site, parts in at)]  # fmt: skip

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        values = [part.V for part in parts if isinstance(part, Fused)]
        if phase != "loss" or not self.penalty:
            return None
        off = [(V - torch.eye(len(V), device=V.device)).square().sum().to(values[0].device) for V in values]
        return self.penalty * torch.stack(off).sum()

    def count(self, sites: Sequence[Site]) -> int:
        return sum(3 * site.outputs**2 + 2 * site.outputs for site in sites)
