"""The structural properties of a method, in the terms of Sabry & Belz 2023 (PEFT-Ref, arXiv 2304.12410).

None of them is written down with a method. Where its parts are, which verbs they have and what they share says one
half; for the other half the parts run in a small model with random weights (`trying`).
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import fields

import torch

from graft.attach import Adapter, attach, detach
from graft.attach.adapter import Placed
from graft.method import Method, StandIn
from graft.portrait.models import LAYERS, running
from graft.portrait.trying import Tried, tried

SOURCE = "Sabry & Belz 2023, arXiv 2304.12410"
ADAPTED = {"parameter": "reparameterization", "selective": "selection"}
WORKSPACE = {
    "embed": ("embedding layer", ""), "q": ("attention", "queries"), "k": ("attention", "keys"),
    "v": ("attention", "values"), "o": ("attention", "output"), "attention": ("attention", ""), "gate": ("FFN", "gate"),
    "up": ("FFN", "up"), "down": ("FFN", "intermediate representation"), "ffn": ("FFN", ""), "layer": ("layers", ""),
    "stack": ("output of the stack", ""), "norm": ("norms", ""), "head": ("head", ""),
}  # fmt: skip


def structure(method: Method) -> dict[str, str]:
    """The properties by name, several values where parts differ. Raises what `attach` raises on a small decoder."""
    model = running()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = attach(model, method)
        try:
            with torch.no_grad():
                for tensor in adapter.parameters() if not adapter.trained else ():
                    tensor.add_(0.1 * torch.randn_like(tensor))  # what starts at zero would change nothing
            return _in_place(adapter) if adapter.trained else _read(adapter)
        finally:
            detach(model)


def _read(adapter: Adapter) -> dict[str, str]:
    acting = [item for item in adapter.placed if item.site is not None and not item.part.listens]
    acting = [item for item in acting if not isinstance(item.part, StandIn)] or acting
    shared = any(item.site is None or getattr(item.part, "lent", ()) for item in adapter.placed)
    layers = {item.site.layer for item in acting if item.site is not None}
    heard = {item.site.layer for item in adapter.placed if item.site is not None and item.part.listens}
    one_of_each = {(item.term, type(item.part), item.site.role): item for item in reversed(acting) if item.site}
    # What runs a layer computes what is in the layer; its other parts say what it adds there.
    one_of_each = {key: i for key, i in one_of_each.items() if "around" not in i.part.verbs()} or one_of_each
    seen = [(item, tried(adapter.model, item)) for item in reversed(one_of_each.values())]
    terms = adapter.method.methods()
    return {
        "intra-connectivity": _joined(_intra(item, how) for item, how in seen),
        "inter-connectivity": _joined(_inter(item, how) for item, how in seen),
        "parameters adapted": _joined(ADAPTED.get(term.family, "addition") for term in terms),
        "parameter sharing": "shared" if shared else "none",
        "input type": _joined(_input(how) for _, how in seen),
        "insertion form": _joined(_form(item, how) for item, how in seen),
        "insertions": _insertions(layers) + (f", which reads {_insertions(heard)}" if heard - {None} else ""),
        "integration form": _joined(_integration(item, how, terms[item.term]) for item, how in seen),
        "workspace": _workspace([item.site.role for item in acting if item.site]),
    }


def _in_place(adapter: Adapter) -> dict[str, str]:
    layers = {found[1] for path in adapter.trained if (found := re.search(r"layers\.(\d+)\.", path))}
    return {
        "intra-connectivity": "the base's own", "inter-connectivity": "fixed: dense", "parameters adapted": "selection",
        "parameter sharing": "none", "input type": "weights", "insertion form": "in place",
        "insertions": _insertions(layers), "integration form": "new values", "workspace": "layers",
    }  # fmt: skip


def _intra(item: Placed, how: Tried | None) -> str:
    if item.part.verbs() & {"tokens", "keys_values"}:
        return "dense: embedding" if how and how.stored else "dense: non-linear MLP"
    if how is None:
        return "none: parameter vector" if _vectors(item) else "dense: linear MLP"
    if how.mixes:
        return "dense: across tokens"
    if how.rescales or (how.linear and _vectors(item)):
        return "none: parameter vector"
    if how.alone:
        return "dense: network of its own"
    if not how.reads:
        return "none: parameter vector"
    return "dense: linear MLP" if how.linear else "dense: non-linear MLP"


def _vectors(item: Placed) -> bool:
    """Whether it has vectors alone, and no matrix of others either."""
    parts = (item.part, *getattr(item.part, "lent", ()))
    return not any(tensor.dim() > 1 for part in parts for tensor in (*part.parameters(), *part.buffers()))


def _inter(item: Placed, how: Tried | None) -> str:
    site, part = item.site, item.part
    assert site is not None
    if how and how.mixes:
        return "dynamic"
    matrix = "params" in part.verbs() and site.parameter in part.params(site)
    return "fixed: sparse" if matrix and part.changed(site) < site.weight.numel() else "fixed: dense"


def _input(how: Tried | None) -> str:
    if how is None or how.rescales or not (how.reads or how.varies):
        return "weights"
    return "data" if how.reads and "y" not in how.reads else "hidden"


def _form(item: Placed, how: Tried | None) -> str:
    if item.part.verbs() & {"tokens", "keys_values"}:
        return "parallel"
    if how is None or not (how.reads or how.varies):
        return "in place"
    return "sequential" if how.itself and not how.alone else "parallel"


def _integration(item: Placed, how: Tried | None, method: Method) -> str:
    verbs = item.part.verbs()
    if "tokens" in verbs:
        return "concatenation"
    if "keys_values" in verbs:
        return "gated addition"
    if how is None:
        return "new values"
    if how.rescales:
        return "rescaling"
    if how.itself and how.linear and not how.alone and len(how.reads) == 1:
        return "multiplication"
    scaled = {"alpha", "scale"} & {field.name for field in fields(method)}
    return "scaled addition" if scaled and how.reads else "direct addition"


def _workspace(roles: Collection[str]) -> str:
    """Where it acts, as in "attention: queries, values; FFN"."""
    parts: dict[str, dict[str, None]] = {}
    for role in roles:
        block, part = WORKSPACE.get(role, (role, ""))
        parts.setdefault(block, {})[part] = None
    return "; ".join(f"{block}: {', '.join(filter(None, each))}".rstrip(": ") for block, each in parts.items())


def _insertions(layers: Collection) -> str:
    inside = [layer for layer in layers if layer is not None]
    if not inside:
        return "1 layer"
    return "all layers" if len(inside) == LAYERS else f"{len(inside)} of {LAYERS} layers"


def _joined(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))
