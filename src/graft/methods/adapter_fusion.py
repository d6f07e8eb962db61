"""AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247): several trained adapters, mixed by an attention over them.

    FFN(a) ← FFN(a) + Σₙ αₙ zₙ V,   α = softmaxₙ((q Q + b_Q)·(zₙ K + b_K)),   Q, K, V ∈ R^{d×d}
    loss + 0.01 Σ ‖I − V‖²

zₙ is what adapter n adds, and q what the first of them reads, as in AdapterHub: LN₂(FFN(a) + a) for Pfeiffer's, a for
parallel ones, else FFN(a). Q and K start N(0, 0.02²), V as the identity with 1e-6 beside its diagonal; scores are not
divided by √d. Whoever trains by a loop of their own adds `during("loss", …)` to the loss.

`keep` prunes what is fused (AdapterDrop, Rücklé et al. 2021, arXiv 2010.11918): each place goes on with the adapters
that tokens attended to most, without the others. It does so after half of a run, which then goes on, and stores no
more; the paper prunes after training.

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
HALF = 0.5  # of the run


class Fused(Hosting):
    """The adapters of one site, and the attention over what they add."""

    def __init__(self, width: int, adapters: Sequence[Part], counts: bool) -> None:
        super().__init__(adapters)
        self.requires_grad_(False)
        self.attended: Tensor | None
        self.register_buffer("attended", torch.zeros(len(adapters)) if counts else None)
        self.whole = False  # what trains is its own
        self.Q, self.K = normal(width, width, std=0.02), normal(width, width, std=0.02)
        self.b_Q, self.b_K = zeros(width), zeros(width)
        self.V = nn.Parameter(torch.full((width, width), BESIDE).fill_diagonal_(1.0))

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        q = getattr(self, self.names[0]).reads(x, y, site, call)
        z = torch.stack(self.added(x, y, site, call), -2)
        scores = (F.linear(q, self.Q, self.b_Q)[..., None, :] * F.linear(z, self.K, self.b_K)).sum(-1)
        alpha = scores.softmax(-1)
        if self.training and self.attended is not None:
            real = call.padding(y.shape[1])
            seen = alpha.detach() if real is None else alpha.detach() * real[..., None]
            self.attended.add_(seen.sum(tuple(range(seen.dim() - 1))))
        return y + F.linear((alpha[..., None] * z).sum(-2), self.V)

    def prune(self, most: int) -> None:
        """Go on with the `most` adapters that were attended to most."""
        if self.attended is not None and len(self.names) > most:
            best = self.attended.topk(most).indices.sort().values
            self.attended = self.attended[best]
            self.keep([self.names[index] for index in best.tolist()])

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        if self.attended is not None and (size := shapes.get("attended")):
            there = {key.partition(".")[0] for key in shapes}
            self.attended = self.attended.new_zeros(tuple(size))
            self.keep([name for name in self.names if name in there])
        super().resize(shapes)


@dataclass(frozen=True)
class AdapterFusion(Method):
    """An attention over adapters that are on the model, which stay as they are."""

    adapters: Annotated[tuple[str, ...], "names of the adapters, which are on the model"] = ()
    penalty: Annotated[float, "factor of the regularizer, which holds V near the identity"] = 0.01
    keep: Annotated[int, "adapters kept at each place, those attended to most in half of a run; 0: all"] = 0
    hosts: Annotated[tuple[str, ...], "how the adapters were made, as is stored; given, new ones are made so"] = ()

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 5e-5
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"
    needs_adapters: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.penalty >= 0, self, "penalty", "must be at least 0", "Try 0.01.")
        check_names(self, self.adapters, self.hosts)
        number = max(len(self.adapters), len(self.hosts), 2)
        check(0 <= self.keep < number, self, "keep", f"must be at least 0 and below {number}, the adapters", "Try 1.")

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
                *((site, Fused(site.outputs, parts, self.keep > 0)) for site, parts in at)]  # fmt: skip

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        fused = [part for part in parts if isinstance(part, Fused)]
        if self.keep and phase == "forward" and step.reaches(None, HALF):
            for part in fused:
                part.prune(self.keep)
        values = [part.V for part in fused]
        if phase != "loss" or not self.penalty:
            return None
        off = [(V - torch.eye(len(V), device=V.device)).square().sum().to(values[0].device) for V in values]
        return self.penalty * torch.stack(off).sum()

    def settled(self, step: Moment) -> bool:
        return not self.keep or step.over(None, HALF)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(3 * site.outputs**2 + 2 * site.outputs for site in sites)
