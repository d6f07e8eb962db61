"""Systems of several runs with a known truth: items and seeds are random, and crossed."""

import math
from typing import Any

import numpy as np
from scipy.stats import norm

from graft import metrics, statistics

Runs = list[list[dict[str, Any]]]
OWN, EACH = 0.5, 0.7  # standard deviations of an item within a system and within a run; between items it is 1


def latent(draw: np.random.Generator, shared: np.ndarray, runs: int, seed_sd: float) -> np.ndarray:
    """(runs, items) normal values of mean 0: shared by systems + the system's + each run's + the seeds' share."""
    items = len(shared)
    own, each = draw.normal(0, OWN, items), draw.normal(0, EACH, (runs, items))
    return shared + own + each + draw.normal(0, 1, (runs, 1)) * seed_sd


def made(name: str, values: np.ndarray, level: float, seed_sd: float) -> tuple[Runs, float]:
    """Records for the metric with their true score: a loss of 3 + level + value, or right where value < level.

    The level of the latter is in standard deviations of the values, so that the truth does not depend on the seeds'.
    """
    if name == "loss":
        rows = (values + 3 + level).tolist()
        return [[{"item": i, "loss": loss, "tokens": 1} for i, loss in enumerate(run)] for run in rows], 3 + level
    right = (values < level * math.sqrt(1 + OWN**2 + EACH**2 + seed_sd**2)).tolist()
    runs = [[{"item": i, "output": (i + hit) % 2, "reference": (i + 1) % 2} for i, hit in enumerate(r)] for r in right]
    return runs, float(100 * norm.cdf(level))


def coverage(
    name: str, runs: int, seed_sd: float, experiments: int, *, against: str | None = None, items: int = 150
) -> float:
    """How often the interval holds the true score, or the true difference to a "seeded" or "fixed" system."""
    metric, draw, hits = metrics.get(name), np.random.default_rng(1), 0
    for seed in range(experiments):
        shared = draw.normal(size=items)
        system, truth = made(name, latent(draw, shared, runs, seed_sd), 1.0, seed_sd)
        if against is None:
            got = statistics.interval_runs(metric, system, resamples=400, seed=seed)
        else:
            sd = seed_sd if against == "seeded" else 0.0
            other, rival = made(name, latent(draw, shared, runs, sd), 0.6, sd)
            truth, other = truth - rival, other if against == "seeded" else other[:1] * runs
            got = statistics.compare_runs(metric, other, system, resamples=400, seed=seed).difference
        hits += got.low <= truth <= got.high
    return hits / experiments


def tournament(
    name: str, draw: np.random.Generator, runs: int, sds: list[float], *, items: int = 60, ahead: float = 0.0
) -> dict[str, Runs]:
    """Equally good contestants, the first without seeds, the others with these; the last is `ahead` of the others."""
    shared = draw.normal(size=items)
    systems = {"fixed": made(name, latent(draw, shared, 1, 0.0), 1.0, 0.0)[0] * runs}
    for at, sd in enumerate(sds):
        level = 1.0 + (ahead if at == len(sds) - 1 else 0.0)
        systems[f"way{at}"] = made(name, latent(draw, shared, runs, sd), level, sd)[0]
    return systems


def false_alarms(name: str, runs: int, sds: list[float], tournaments: int, items: int = 60) -> float:
    """The share of tournaments without a true difference in which any pair is called better or worse."""
    metric, draw, wrong = metrics.get(name), np.random.default_rng(2), 0
    for seed in range(tournaments):
        found = statistics.pairs(metric, tournament(name, draw, runs, sds, items=items), resamples=200, seed=seed)
        wrong += any(comparison.outcome in ("better", "worse") for comparison in found.values())
    return wrong / tournaments


def detected(runs: int, sds: list[float], tournaments: int, *, pilots: int = 30) -> float:
    """How often a difference of the size that the comparisons state as the smallest they can show is shown."""
    metric, draw = metrics.get("loss"), np.random.default_rng(3)

    def last(ahead: float, seed: int) -> list[statistics.Comparison]:
        systems = tournament("loss", draw, runs, sds, ahead=ahead)
        del systems["fixed"]
        found = statistics.pairs(metric, systems, resamples=400, seed=seed)
        return [comparison for pair, comparison in found.items() if f"way{len(sds) - 1}" in pair]

    size = float(np.mean([comparison.smallest for seed in range(pilots) for comparison in last(0.0, seed)]))
    shown = [comparison.outcome == "worse" for seed in range(tournaments) for comparison in last(size, seed)]
    return float(np.mean(shown))
