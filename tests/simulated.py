"""Systems of several runs with a known truth: items and seeds are random, and crossed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

Runs = list[list[dict[str, Any]]]


def latent(
    draw: np.random.Generator, shared: np.ndarray, runs: int, seed_sd: float, own: float = 0.5, each: float = 0.7
) -> np.ndarray:
    """(runs, items) normal values of mean 0: the items' shared ones + the system's own (sd) + each run's + the seeds'."""
    items = len(shared)
    return (
        shared
        + draw.normal(0, own, items)
        + draw.normal(0, each, (runs, items))
        + draw.normal(0, seed_sd, (runs, 1) if seed_sd else (1, 1))
    )


def classified(values: np.ndarray, cut: float) -> Runs:
    """Runs that are right where their value lies below the cut; two labels, alternating by item."""
    labels = [item % 2 for item in range(values.shape[1])]
    return [
        [{"item": i, "output": y if hit else 1 - y, "reference": y} for i, (hit, y) in enumerate(zip(run, labels))]  # noqa: B905
        for run in values < cut
    ]


def predicted(values: np.ndarray, shift: float = 0.0) -> Runs:
    """Runs whose loss per item is 3 + shift + the value."""
    return [[{"item": i, "loss": 3 + shift + value, "tokens": 1} for i, value in enumerate(run)] for run in values.tolist()]


def share(cut: float, sds: Sequence[float]) -> float:
    """The chance in percent that a latent value of these standard deviations lies below the cut."""
    return float(100 * norm.cdf(cut / math.sqrt(sum(sd**2 for sd in sds))))
