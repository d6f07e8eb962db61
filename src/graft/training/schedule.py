"""The schedule of the learning rate over a run of so many steps, or of so many seconds."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from graft.training.options import Schedule, TrainingOptions


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
