"""Optimizer groups from the methods themselves, AdamW on them, and the schedule of the learning rate."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from graft.attach import Adapter
from graft.errors import BadInput
from graft.training.options import Schedule, TrainingOptions


def groups(adapter: Adapter, options: TrainingOptions) -> list[dict[str, Any]]:
    """What trains, each term of a sum with its own learning rate; vectors apart, which are not decayed.

    A rate given in the options stands for the method's own; groups of one method keep their ratio to it.
    Raises BadInput when nothing trains.
    """
    found: list[dict[str, Any]] = []
    for method, parts in adapter.terms():
        own = method.learning_rate
        wanted = [dict(group) for group in method.groups(parts)]
        if adapter.trained:
            wanted.append({"params": [adapter.model.get_parameter(path) for path in adapter.trained]})
        for group in wanted:
            rate = group.pop("lr", own)
            params = group.pop("params")
            group["lr"] = rate if options.lr is None else options.lr * rate / own
            decay = group.pop("weight_decay", options.weight_decay)
            for matrices, share in ((True, decay), (False, 0.0)):
                chosen = [p for p in params if (p.dim() > 1) == matrices]
                if chosen:
                    found.append({**group, "params": chosen, "weight_decay": share})
    if not found:
        raise BadInput(f"adapter {adapter.name!r} has no tensor that trains. Choose a method that has.")
    return found


def optimizer(adapter: Adapter, options: TrainingOptions) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) on the groups, as one kernel where there is one."""
    trained = groups(adapter, options)
    fused = all(p.device.type in ("cpu", "cuda") for group in trained for p in group["params"])
    return AdamW(trained, betas=(0.9, 0.999), eps=1e-8, fused=fused)


def scheduler(optimizer: Optimizer, options: TrainingOptions, share: Callable[[float], float]) -> LambdaLR:
    """The schedule over the whole run; `share` tells how much of the run is over, by steps or by time.

    A step is taken at its middle, so that neither the first nor the last one has a rate of zero.
    """
    return LambdaLR(optimizer, lambda step: factor(options.schedule, share(step + 0.5), options.warmup))


def factor(schedule: Schedule, share: float, warmup: float) -> float:
    """The learning rate at `share` (0 to 1) of the run, relative to its peak."""
    if share < warmup:
        return share / warmup
    rest = min((share - warmup) / (1 - warmup), 1.0)
    match schedule:
        case "linear":
            return 1 - rest
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * rest))
        case "constant":
            return 1.0


class Fingerprints:
    """Sums over the bits of each trainable tensor: enough to tell that one changed, and no copy of any.

    Tensors of a task head count only where the adapter has no others: a head learns by itself.
    """

    def __init__(self, adapter: Adapter) -> None:
        heads = {id(p) for placed in adapter.placed if placed.head for p in placed.part.parameters()}
        trainable = [(name, p) for name, p in adapter.named_parameters() if p.requires_grad]
        self.tensors = dict([(name, p) for name, p in trainable if id(p) not in heads] or trainable)
        self.sums = self._sums()

    def changed(self) -> bool:
        """Whether any tensor is not what it was."""
        return self._sums() != self.sums

    def _sums(self) -> list[int]:
        whole = {4: torch.int32, 2: torch.int16, 8: torch.int64, 1: torch.int8}
        return [
            int(p.detach().contiguous().view(whole[p.element_size()]).sum(dtype=torch.int64))
            for p in self.tensors.values()
        ]
