"""Switching an adapter's parts off at some layers, without taking them off: what are they worth there?"""

from collections.abc import Container, Iterator
from contextlib import contextmanager

from torch import nn

from graft.attach.adapter import Adapter
from graft.attach.spot import Work, require
from graft.errors import Refused


@contextmanager
def silenced(model: nn.Module, name: str, layers: Container[int]) -> Iterator[None]:
    """Within the `with`, the parts of adapter `name` at the numbered layers do nothing; heads and embeddings still do.

    Virtual keys that are off at every layer move no positions. Raises Refused for an adapter that has no parts to
    switch off: it trains the base's own tensors, is merged, or acts outside the layers, as virtual tokens do.
    """
    record = require(model, name)
    adapter = record.adapters[name]
    if adapter.trained or adapter.merged:
        raise Refused(f"{name!r} is in the base's own weights: it has no parts that could be switched off.")
    if not layers_of(adapter):
        raise Refused(f"{name!r} has no parts at layers that could be switched off: it acts before or after them.")
    off = {
        id(placed.part)
        for placed in adapter.placed
        if placed.site is not None and placed.site.layer in layers and not placed.head
    }
    before = {spot: spot.work[name] for spot in record.spots.values() if name in spot.work}
    keys = {placed.part: placed.part.length for placed in adapter.placed if id(placed.part) in off}
    for spot in before:
        spot.work[name] = Work.of(job for job in spot.jobs[name] if id(job.part) not in off)
    for part in keys:
        part.length = 0
    record.call = None
    try:
        yield
    finally:
        for part, length in keys.items():
            part.length = length
        for spot, work in before.items():
            spot.work[name] = work
        record.call = None


def layers_of(adapter: Adapter) -> list[int]:
    """The numbers of the layers at which an adapter has parts that do something."""
    acting = (p.site for p in adapter.placed if p.site is not None and not p.head and not p.part.listens)
    return sorted({site.layer for site in acting if site.layer is not None})
