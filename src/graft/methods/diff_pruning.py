"""Diff pruning (Guo et al. 2021, arXiv 2012.07463): learn a difference to the base, and which entries of it are zero.

    W′ = W + z ⊙ δ,   z = clamp(s(r − l) + l, 0, 1),   s = σ(log u − log(1 − u) + α),   u ~ U(0, 1),   r = −l = 1.5
    loss + λ Σ P(z ≠ 0),   P(z ≠ 0) = σ(α − log(−l/r));   `structured`: z of an entry times z of its matrix

After `burn_in` steps, or half of the run, the p·out·in entries of largest |z ⊙ δ| in each matrix are kept, and they
alone train on. Whatever is evaluated, merged or stored has no more of them at any time: outside training z is its value
without noise, and only the largest entries of z ⊙ δ count. Stored are their places and values. The optimizer's state is
that of all δ and α, two numbers for each weight, which the search needs, to the end of the run. The paper's groups are
the tensors of the base; biases and norms stay as they are here. α has a learning rate of its own, 0.1 whatever that of
δ is, and no decay.

Departure: with gates, a step of δ is `search` times as long as one of the kept entries, which learn at rates that undo
the base when all move.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Moment, Part, check, positive
from graft.sparse import Pruned, Sparse, kept

LEFT, RIGHT = -1.5, 1.5
START = 5.0
OPEN = 1e4  # a logit at which a gate is 1 to the bit, and has no gradient
NEAR = 1e-4  # u stays this far from 0 and 1
RATE = 0.1  # of α
HALF = 0.5  # of the run


class Gates(Pruned):
    """The difference of one site's matrix, and the logits of its gates."""

    def __init__(self, site: Site, method: "DiffPruning") -> None:
        super().__init__(site, kept(method.density, site), method.search)
        self.alpha = nn.Parameter(torch.full(site.weight.shape, START))
        self.group = nn.Parameter(torch.tensor(START)) if method.structured else None

    def gate(self, alpha: Tensor, noisy: bool) -> Tensor:
        """z of these logits, drawn or without noise."""
        if noisy:
            u = torch.rand_like(alpha).clamp(NEAR, 1 - NEAR)
            alpha = alpha + u.log() - (1 - u).log()
        return (alpha.sigmoid() * (RIGHT - LEFT) + LEFT).clamp(0, 1)

    def difference(self) -> Tensor:
        return self._gated(noisy=True)

    def settled(self) -> Tensor:
        return self._gated(noisy=False)

    def _gated(self, noisy: bool) -> Tensor:
        """z ⊙ δ."""
        found = self.gate(self.alpha, noisy) * super().difference()
        return found if self.group is None else self.gate(self.group, noisy) * found

    def expected(self) -> Tensor:
        """How many entries are expected not to be zero."""
        shift = math.log(-LEFT / RIGHT)
        number = (self.alpha - shift).sigmoid().sum()
        return number if self.group is None else number * (self.group - shift).sigmoid()

    @torch.no_grad()
    def fix(self) -> None:
        """Keep the entries that count as they are, with gates that stay open, and put all others back for good."""
        self.prune(fix=True)
        for logits in (self.alpha, self.group):
            if logits is not None:
                logits.fill_(OPEN)


@dataclass(frozen=True)
class DiffPruning(Method):
    """Learn a sparse difference to the base with gates that prune it. Stores places and values; merges."""

    density: Annotated[float, "p, the share of each matrix that is kept"] = 0.005
    structured: Annotated[bool, "a gate for each whole matrix too"] = True
    penalty: Annotated[float, "λ, the price of an entry that is not zero"] = 1.25e-7
    burn_in: Annotated[int | None, "steps with gates, then the kept entries alone train; none: half of the run"] = None
    search: Annotated[float, "steps of the search, which moves all weights, over those of the kept ones"] = 0.03
    sparse: Annotated[bool, "attach places and values alone, as they are stored"] = False
    sites: Annotated[str, "whose matrices"] = "all-linear"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.density < 1, self, "density", "must be above 0 and below 1", "Try 0.005.")
        check(self.penalty >= 0, self, "penalty", "must be at least 0", "Try 1.25e-7.")
        check(0 < self.search <= 1, self, "search", "must be above 0 and at most 1", "Try 0.03.")
        positive(self, "burn_in")

    def build(self, site: Site) -> Part:
        return Sparse(site, kept(self.density, site)) if self.sparse else Gates(site, self)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        gates = [part for part in parts if isinstance(part, Gates)]
        if phase == "loss" and gates and not step.over(self.burn_in, HALF):
            return self.penalty * torch.stack([part.expected() for part in gates]).sum()
        if phase == "forward" and step.reaches(self.burn_in, HALF):
            for part in gates:
                part.fix()
        return None

    def groups(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        logits = [p for part in parts if isinstance(part, Gates) for p in (part.alpha, part.group) if p is not None]
        own = {id(p) for p in logits}
        rest = [p for part in parts for p in part.parameters() if id(p) not in own]
        return [{"params": rest}, {"params": logits, "lr": RATE, "apart": True, "weight_decay": 0.0}]

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: part.sparse() if isinstance(part, Gates) else part for key, part in parts.items()}

    def serving(self) -> Method:
        return replace(self, sparse=True)

    def sizes(self) -> tuple[str, ...]:
        return ("density",) if self.sparse else ()

    def count(self, sites: Sequence[Site]) -> int:
        if self.sparse:
            return sum(kept(self.density, site) for site in sites)
        return sum(2 * site.weight.numel() + self.structured for site in sites)
