"""A system of several runs, loaded: its statistics run by run, scores, resamples and interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graft.errors import BadInput
from graft.statistics.bootstrap import Interval, drawn, nowhere, quantiles, unusable, wilson
from graft.statistics.components import components, seeded
from graft.statistics.measure import Array, Measure, Record
from graft.statistics.pairing import Item, lined_up

Runs = Sequence[Sequence[Record]]


@dataclass(frozen=True)
class System:
    """The statistics of each run, their scores (S,) and draws (resamples, S); or the reason why there are none."""

    name: str
    runs: Sequence[Array]
    scores: Array
    draws: Array
    interval: Interval

    @property
    def reason(self) -> str | None:
        """Why there is no score."""
        return None if len(self.draws) else self.interval.reason


@dataclass(frozen=True)
class Settings:
    """How to resample, and the level of intervals and tests."""

    metric: Measure
    resamples: int
    level: float
    seed: int


def load(settings: Settings, systems: Mapping[str, Runs]) -> tuple[list[System], list[Item]]:
    """Every system with its draws, and the names of the items."""
    if not 0 < settings.level < 1:
        raise BadInput(f"level must lie between 0 and 1, got {settings.level}. Try 0.95.")
    keys = [(name, at) for name, runs in systems.items() for at in range(len(runs))]
    sides = {f"{name} (run {at + 1})": systems[name][at] for name, at in keys}
    lined = dict(zip(keys, lined_up(sides) if sides else [], strict=True))
    items = [record["item"] for record in next(iter(lined.values()), [])]
    return [
        _system(settings, name, [lined[name, at] for at in range(len(runs))]) for name, runs in systems.items()
    ], items


def _system(settings: Settings, name: str, records: Runs) -> System:
    metric, level = settings.metric, settings.level
    try:
        runs = [metric.statistics(run) for run in records]
    except BadInput as error:
        return _without(name, str(error), len(records))
    reasons = [metric.reason(run) for run in runs] or ["it has no run"]
    several = len(runs) > 1
    reason = next((f"run {at}: {why}" if several else why for at, why in enumerate(reasons, 1) if why), None)
    if reason is not None:
        return _without(name, reason, len(runs))
    # A run that comes again, of a system that no seed changes, is drawn once.
    places = [next(at for at, run in enumerate(runs) if np.array_equal(run, each)) for each in runs]
    once = sorted(set(places))
    columns = drawn(metric, [runs[at] for at in once], settings.resamples, settings.seed)
    draws = np.stack([columns[once.index(at)] for at in places], axis=1)
    scores = np.array([metric.aggregate(run) for run in runs])
    return System(name, runs, scores, draws, _interval(metric, scores, draws, len(runs[0]), level))


def _without(name: str, reason: str, runs: int) -> System:
    return System(name, [], np.empty(0), np.empty((0, 0)), nowhere(math.nan, reason, runs))


def _interval(metric: Measure, scores: Array, draws: Array, items: int, level: float) -> Interval:
    """A system's mean score over runs, from the scores and draws of its runs."""
    value, runs, mean = float(scores.mean()), len(scores), draws.mean(axis=1)
    if metric.proportion:
        # As many independent items as would vary like these: runs that agree are no more items than one run.
        single, spread = value * (100 - value), float(mean.var())
        effective = min(max(single / spread, items), items * runs) if seeded(draws) and spread > 0 else items
        low, high = wilson(value, effective, level)
        middle = value
        if items == 1 or not seeded(draws):
            return Interval(value, low, high, math.sqrt(single / items), runs=runs)
    elif reason := unusable(mean, items):
        return nowhere(value, reason, runs)
    else:
        low, middle, high = quantiles(value, mean, items, level)
    parts = components([(scores, draws)], items)
    low, high = middle - parts.reach(middle - low, level), middle + parts.reach(high - middle, level)
    return Interval(value, max(low, metric.bounds[0]), min(high, metric.bounds[1]), parts.error, runs=runs)
