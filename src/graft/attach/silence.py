"""Switching an adapter's parts off at some layers, without taking them off: what are they worth there?"""

from collections.abc import Container, Iterator
from contextlib import contextmanager

from torch import nn

from graft.attach.spot import Work, require
from graft.errors import Refused


@contextmanager
def silenced(model: nn.Module, name: str, layers: Container[int]) -> Iterator[None]:
    """Within the `with`, the parts of adapter `name` at the numbered layers do nothing; heads and embeddings still do.

    Raises Refused for an adapter that trains the base's own tensors or is merged: it has no parts to switch off.
    """
    record = require(model, name)
    adapter = record.adapters[name]
    if adapter.trained or adapter.merged:
        raise Refused(f"{name!r} is in the base's own weights: it has no parts that could be switched off.")
    heads = {id(placed.part) for placed in adapter.placed if placed.head}
    before = {spot: spot.work[name] for spot in record.spots.values() if name in spot.work}
    for spot in before:
        spot.work[name] = Work.of(
            job for job in spot.jobs[name] if id(job.part) in heads or job.site.layer not in layers
        )
    record.call = None
    try:
        yield
    finally:
        for spot, work in before.items():
            spot.work[name] = work
        record.call = None
