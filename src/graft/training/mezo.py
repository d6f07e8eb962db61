"""MeZO (Malladi et al. 2023, arXiv 2305.17333): the slope of the loss along a random direction, from two forwards.

    ĝ = [L(θ + εz) − L(θ − εz)] / 2ε,   z ~ N(0, 1),   θ ← θ − η(ĝ z + λθ)

z is drawn again from the seed, the step and the tensor's number wherever it is needed, so that a step is known from
two numbers (`graft.training.journal`). Nothing is kept for a backward and no moments; the loss may be any number.

Departures: θ is put back from a copy of what trains, where the authors add and subtract εz, which drifts (by 4 % in
100 steps of bf16). Steps are far smaller than half precision can tell apart: what rounds away of a tensor of the base
in bf16 or fp16 is kept beside it, and comes back once it has added up. With the terms of a sum each has its own ε, and
ĝ is along z scaled by it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from graft.method import Method, Part

# Perturbation ε and learning rate of the paper's table 15 and 16: all weights, prefixes, and LoRA for everything else.
WHOLE, INPUT, OTHER = (1e-3, 1e-6), (1e-1, 1e-2), (1e-2, 1e-4)


def scale(method: Method, parts: Sequence[Part]) -> tuple[float, float]:
    """The perturbation and the learning rate that suit what trains."""
    if method.in_place or any(part.whole for part in parts):
        return WHOLE
    return INPUT if method.family == "input" else OTHER


class MeZO(Optimizer):
    """`estimate` measures the slope, `step` moves. Groups need `lr`, `weight_decay` and `perturbation`.

    whole: also write ĝz as the gradient, for methods that read gradients or change them before the step.
    """

    def __init__(self, groups: list[dict[str, Any]], seed: int, whole: bool = False) -> None:
        super().__init__(groups, {})
        self.seed, self.whole = seed, whole
        self.number, self.slope, self.factor = 0, 0.0, 1.0

    @torch.no_grad()
    def estimate(self, number: int, loss: Callable[[], float]) -> float:
        """Measure the loss at both sides of θ for step `number`; gives their mean. θ is what it was, to the bit."""
        before = [p.clone() for group in self.param_groups for p in group["params"]]
        sides = []
        try:
            for sign in (1, -1):
                for (p, group, z), was in zip(self._directions(number), before, strict=True):
                    p.copy_(was + sign * group["perturbation"] * z)
                sides.append(loss())
        finally:
            for p, was in zip((p for group in self.param_groups for p in group["params"]), before, strict=True):
                p.copy_(was)
        self.number, self.slope = number, _single((sides[0] - sides[1]) / 2)
        if self.whole:
            for p, group, z in self._directions(number):
                p.grad = self.slope / group["perturbation"] * z
        return sum(sides) / 2

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move along the direction of the last estimate, at the rate of now."""
        first = self.param_groups[0]
        self.factor = _single(first["lr"] / first["initial_lr"])
        self.move(self.number, self.slope, self.factor)

    @torch.no_grad()
    def move(self, number: int, slope: float, factor: float) -> None:
        """Take step `number` of a run, given the slope that was found and the share of the peak rate."""
        for p, group, z in self._directions(number):
            rate = group["initial_lr"] * factor
            estimated = p.grad if self.whole else slope / group["perturbation"] * z
            value = p.float() + self.state[p].get("rest", 0.0)
            value = value * (1 - rate * group["weight_decay"]) - rate * estimated
            p.copy_(value)
            if p.dtype != value.dtype:
                self.state[p]["rest"] = (value - p.float()).to(p.dtype)

    def _directions(self, number: int) -> Iterator[tuple[Tensor, dict[str, Any], Tensor]]:
        """Every tensor with its group and its z."""
        at = 0
        for group in self.param_groups:
            for p in group["params"]:
                draws = torch.Generator(p.device).manual_seed(_key(self.seed, number, at))
                yield p, group, torch.randn(p.shape, generator=draws, device=p.device)
                at += 1


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of the tensors' names, kinds and bits, by which a start is known again."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _key(*numbers: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1


def _single(number: float) -> float:
    """The number as four bytes hold it."""
    return float(np.float32(number))
