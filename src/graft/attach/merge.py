"""merge and unmerge: write an adapter into the base's weights, and put back exactly what was there."""

import torch
from torch import Tensor, nn

from graft.attach.hooks import placed
from graft.attach.spot import Grafted, Work, require
from graft.errors import Refused


@torch.inference_mode(False)
def merge(model: nn.Module, name: str = "default") -> None:
    """Write adapter `name` into the weights: the same function, no extra cost. `unmerge` restores them bit for bit.

    Computed in fp32 and rounded once. Raises Refused, naming why, for parts that are no change of parameters, for a
    bias the model has no place for, and for weights that are shared with another module.
    """
    record = require(model, name)
    adapter = record.adapters[name]
    if adapter.merged or adapter.trained:
        raise Refused(f"{name!r} is {'merged already' if adapter.merged else 'in the weights from the start'}.")
    _refuse(record, name)
    originals: dict[tuple[str, str], Tensor] = {}
    with torch.no_grad():
        for item in adapter.placed:
            if item.site is None:
                continue
            training, part = item.part.training, item.part.eval()
            values = part.params(item.site) if "params" in part.verbs() and not part.rests else {}
            item.part.train(training)  # what a part draws in training is no part of the function that is merged
            for parameter, value in values.items():
                module, key = item.site.module, (item.site.path, parameter)
                assert module is not None
                stored = getattr(module, parameter)
                originals.setdefault(key, stored.detach().clone())
                stored.data = placed(item.site, parameter, value).detach().clone()
    adapter.merged = originals
    for spot in record.spots.values():
        spot.work.pop(name, None)
    record.names, record.call = name, None


def unmerge(model: nn.Module, name: str = "default") -> None:
    """Put back the weights that `merge` kept, and run the adapter attached again."""
    record = require(model, name)
    adapter = record.adapters[name]
    if not adapter.merged:
        raise Refused(f"{name!r} is not merged.")
    for (path, parameter), original in adapter.merged.items():
        stored = getattr(model.get_submodule(path), parameter)
        stored.data = original.to(stored)  # the model may have moved meanwhile
    adapter.merged = {}
    for spot in record.spots.values():
        if name in spot.jobs:
            spot.work[name] = Work.of(spot.jobs[name])
    record.call = None


def _refuse(record: Grafted, name: str) -> None:
    """Everything that stands against merging, said at once."""
    adapter, reasons = record.adapters[name], []
    others = [other for other in record.adapters if other != name]
    if others:
        reasons.append(f"other adapters are attached ({', '.join(others)}): detach them first")
    acting = {type(p.part) for p in adapter.placed if p.part.verbs() and "params" not in p.part.verbs()}
    for kind in sorted(kind.__qualname__ for kind in acting):
        reasons.append(f"{kind} is no change of parameters")
    shared = {path for group in record.anatomy.tied for path in group}
    for item in adapter.placed:
        if item.site is None or "params" not in item.part.verbs():
            continue
        for parameter in item.part.params(item.site):
            if getattr(item.site.module, parameter, None) is None:
                reasons.append(f"{item.site.path} has no {parameter} to write to")
            if f"{item.site.path}.{parameter}" in shared:
                reasons.append(f"{item.site.path}.{parameter} is shared with another module, which would change too")
    if reasons:
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        raise Refused(f"{name!r} cannot be merged: {'; '.join(reasons[:3])}{more}. Serve it attached.")
