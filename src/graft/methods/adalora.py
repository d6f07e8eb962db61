"""AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): a low-rank update as an SVD, pruned where it matters least.

    W′ = W + s·P diag(λ) Q,   P ∈ R^{out×r},  λ ∈ R^r,  Q ∈ R^{r×in},  s = α/(r + 10⁻⁵),  r = `init_rank` for ever
    loss + γ·mean(‖PᵀP − I‖_F, ‖QQᵀ − I‖_F over all sites)

Starts as the base because λ = 0; P and Q are N(0, 0.02²). Up to step `warmup` all ranks are kept; then the number kept
over all sites falls along a cubic to `target_rank` for each, `final` steps before `total_steps`, and stays there. What
goes are the triplets (λ_k, P_k, Q_k) of the least importance: of every entry Ī·U, smoothed |w·∂L/∂w| times its
smoothed deviation, that of λ_k plus the means over P_k and Q_k. λ is set to 0 every `interval` steps and may grow again
until the final phase. As in the authors' code the norms of the penalty are not squared, where the paper squares and
adds them. Of triplets of equal importance no more are pruned than asked, where their threshold takes all of them.
Only steps of the final phase may be the best of a run, so that it ends with as many triplets as said. There is no
rank-stabilized form, as the scale stays while the rank falls, and no trained magnitude: it would weigh the triplets
whose importance is compared. Unless given, `warmup` and `final` are shares of the run, so that short ones are pruned
too; `interval` is 10, where the authors have 1 to 100 by task; and `sites` are LoRA's, where they take all linear maps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Moment, Part, check, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

WARMUP, FINAL = 0.1, 0.3  # shares of the run before pruning and after it


class Triplets(Part):
    """P, λ and Q at one site, and the running importance of their entries."""

    def __init__(self, site: Site, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.matrix(site).low_rank(site, rank)
        self.P, self.Q = normal(site.outputs, rank, std=0.02), normal(rank, site.inputs, std=0.02)
        self.lam = zeros(rank)
        self.scale, self.dropout = scale, dropout
        for name, parameter in list(self.named_parameters()):
            for kind in ("importance", "deviation"):
                self.register_buffer(f"{kind}_{name}", torch.zeros_like(parameter))

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        low = F.linear(self.drop(x), self.Q) if x.is_floating_point() else F.embedding(x, self.Q.T)
        return y + self.scale * F.linear(low * self.lam, self.P)

    def params(self, site: Site) -> dict[str, Tensor]:
        return {site.parameter: site.weight.to(self.P.dtype) + self.scale * (self.P * self.lam) @ self.Q}

    def bound(self, site: Site) -> int:
        return len(self.lam) if self.lam.is_meta else int(self.lam.count_nonzero())  # none before the first step

    def skew(self) -> Tensor:
        """How far P and Q are from orthogonal: ‖PᵀP − I‖_F and ‖QQᵀ − I‖_F."""
        one = torch.eye(len(self.lam), device=self.P.device)
        return torch.stack([(self.P.T @ self.P - one).norm(), (self.Q @ self.Q.T - one).norm()])

    @torch.no_grad()
    def note(self, beta1: float, beta2: float) -> None:
        """Smooth the importance |w·∂L/∂w| of every entry, and how far it is from its smoothed self."""
        for name, parameter in self.named_parameters():
            importance, deviation = self.get_buffer(f"importance_{name}"), self.get_buffer(f"deviation_{name}")
            seen = (parameter * parameter.grad).abs() if parameter.grad is not None else torch.zeros_like(parameter)
            importance.lerp_(seen, 1 - beta1)
            deviation.lerp_((seen - importance).abs(), 1 - beta2)

    def scores(self) -> Tensor:
        """The importance of each triplet, (r,)."""
        P, lam, Q = (
            self.get_buffer(f"importance_{name}") * self.get_buffer(f"deviation_{name}") for name in ("P", "lam", "Q")
        )
        return lam + P.mean(0) + Q.mean(1)


class Served(Part):
    """P, λ and Q without what only training needs."""

    def __init__(self, of: Triplets) -> None:
        super().__init__()
        self.P, self.lam, self.Q = of.P, of.lam, of.Q


@dataclass(frozen=True)
class AdaLoRA(Method):
    """LoRA as an SVD whose rank is pruned while training, so that it ends up where it matters. Merges."""

    init_rank: Annotated[int, "rank of each update at first"] = 12
    target_rank: Annotated[int, "mean rank of the updates in the end"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/init_rank"] = 32.0
    total_steps: Annotated[int | None, "steps that the schedule is laid over; none: those of the run"] = None
    warmup: Annotated[int | None, "steps before pruning begins; none: a tenth of all"] = None
    final: Annotated[int | None, "steps in the end at the target rank; none: three tenths of all"] = None
    interval: Annotated[int, "steps between two prunings"] = 10
    penalty: Annotated[float, "γ, how much P and Q are held orthogonal in training"] = 0.1
    beta1: Annotated[float, "smoothing of the importance"] = 0.85
    beta2: Annotated[float, "smoothing of its deviation"] = 0.85
    dropout: Annotated[float, "dropout on the update's input, in training"] = 0.0
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "init_rank", "target_rank", "total_steps", "interval")
        above = self.target_rank <= self.init_rank
        check(above, self, "target_rank", f"must be at most init_rank, {self.init_rank}", f"Try {self.init_rank}.")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 32.")
        check(self.penalty >= 0, self, "penalty", "must be at least 0", "Try 0.1.")
        for name in ("beta1", "beta2"):
            check(0 < getattr(self, name) < 1, self, name, "must be above 0 and below 1", "Try 0.85.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")
        for name in ("warmup", "final"):
            if (steps := getattr(self, name)) is not None:
                check(self.total_steps is not None, self, name, "must come with total_steps", "Give total_steps too.")
                check(steps >= 0, self, name, "must be at least 0", "Try 0.")
        if self.total_steps is not None:
            _, warmup, final = self.schedule(self.total_steps)
            rule = f"must be more than {warmup + final}, the steps without pruning"
            check(warmup + final < self.total_steps, self, "total_steps", rule, "Lower warmup or final.")

    def schedule(self, total: float) -> tuple[float, float, float]:
        """Steps in all, before pruning and after it; of a run of length 1, the shares of it."""
        warmup = WARMUP * total if self.warmup is None else self.warmup
        return total, warmup, FINAL * total if self.final is None else self.final

    def build(self, site: Site) -> Part:
        return Triplets(site, self.init_rank, self.alpha / (self.init_rank + 1e-5), self.dropout)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        mine = [part for part in parts if isinstance(part, Triplets)]
        if phase == "loss" and self.penalty:
            device = mine[0].P.device
            return self.penalty * torch.cat([part.skew().to(device) for part in mine]).mean()
        if phase == "stepped":
            self.allocate(step, mine)
        return None

    @property
    def reads_gradients(self) -> bool:
        return True

    def pruned(self, step: Moment) -> float:
        """How much of the pruning is over after a step: 0 or less in the warm-up, 1 or more in the final phase."""
        done, length = (step.share, 1.0) if self.total_steps is None else (step + 1, self.total_steps)
        total, warmup, final = self.schedule(length)
        return (done - warmup) / (total - warmup - final)

    def settled(self, step: Moment) -> bool:
        return self.pruned(step) >= 1 or self.init_rank == self.target_rank

    def budget(self, pruned: float, sites: int) -> int:
        """How many triplets are kept over all sites."""
        first, last = self.init_rank * sites, self.target_rank * sites
        return int(last + (first - last) * min(max(1 - pruned, 0.0), 1.0) ** 3)

    @torch.no_grad()
    def allocate(self, step: Moment, parts: Sequence[Triplets]) -> None:
        """After the optimizer's step: note the gradients, and set λ to 0 in the least important triplets when due."""
        pruned = self.pruned(step)
        if pruned < 1:  # from then on importance stands still, and with it what is pruned
            for part in parts:
                part.note(self.beta1, self.beta2)
        if pruned <= 0 or (pruned < 1 and (step + 1) % self.interval):
            return
        device = parts[0].lam.device
        order = torch.cat([part.scores().to(device) for part in parts]).argsort(stable=True)
        kept = torch.ones(len(order), device=device)
        kept[order[: len(order) - self.budget(pruned, len(parts))]] = 0.0
        for part, mask in zip(parts, kept.split([len(part.lam) for part in parts]), strict=True):
            part.lam.mul_(mask.to(part.lam))

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        if self.init_rank == self.target_rank or self.total_steps is None:
            return ()
        total, _, final = self.schedule(self.total_steps)
        return (f"AdaLoRA reaches rank {self.target_rank} at step {total - final:.0f}, as total_steps says",)

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: Served(part) for key, part in parts.items() if isinstance(part, Triplets)}

    def sizes(self) -> tuple[str, ...]:
        return ("init_rank", "target_rank")

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.init_rank * (site.inputs + site.outputs + 1) for site in sites)
