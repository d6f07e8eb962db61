"""Metrics: one file per family, found by its name; a file that begins with an underscore is no family.

    from graft import metrics
    metrics.get("f1").score(records)      # Score(value=71.3, reason=None, items=array([...]))
    metrics.names()                       # every metric of every family

A record is one item of a test set: {"item": id, "output": ..., "reference": ..., and, where a metric needs them,
"probabilities", "loss" (summed, in nats), "tokens", "bytes"}. What a metric is stands in `_metric.py`; a new metric is
an entry in its family's `METRICS`, a new family is a new file.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from graft.errors import BadInput

if TYPE_CHECKING:
    from graft.metrics._metric import Metric, Record, Score

__all__ = ["Metric", "Record", "Score", "families", "get", "names"]


def families() -> list[str]:
    """The names of the families, from the files alone: nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def names(family: str | None = None) -> list[str]:
    """The names of all metrics, or of one family's, in the order of the files."""
    return [name for name, metric in _catalogue().items() if family in (None, metric.family)]


def get(name: str) -> "Metric":
    """The metric called `name`; `f1:LABEL` is the F1 of one label. Raises BadInput with the nearest names."""
    head, colon, argument = name.partition(":")
    metric = _catalogue().get(head)
    if metric is None:
        near = difflib.get_close_matches(head, _catalogue(), n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(_catalogue())}."
        raise BadInput(f"no metric is called {head!r}. {hint}")
    return metric.narrowed(argument) if colon else metric


@cache
def _catalogue() -> Mapping[str, "Metric"]:
    found: dict[str, Metric] = {}
    for family in families():
        for metric in importlib.import_module(f"{__name__}.{family}").METRICS:
            if metric.name in found:
                raise ValueError(f"two metrics are called {metric.name!r}: in {found[metric.name].family} and {family}")
            found[metric.name] = metric
    return MappingProxyType(found)


def __getattr__(name: str) -> Any:
    # The contract needs numpy; whoever only asks which families exist does not.
    if name in ("Metric", "Record", "Score"):
        return getattr(importlib.import_module(f"{__name__}._metric"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
