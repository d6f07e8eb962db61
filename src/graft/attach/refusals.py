"""What is refused before a method is on a model: arguments, neighbors, sums and sizes that cannot work."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from accelerate.utils import has_offloaded_params
from torch import nn

from graft import catalogue
from graft.anatomy.site import Site
from graft.attach.adapter import Adapter, Placed
from graft.attach.spot import Grafted
from graft.errors import BadInput, GraftError, NotApplied, Refused
from graft.memory import available
from graft.method import VERBS, Method, Part

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FLOAT = torch.float32.itemsize  # what parts are made of, whatever the base is


@contextmanager
def blamed(method: Method) -> Iterator[None]:
    """Begin what is refused within the `with` with the method's name, where it is not named."""
    try:
        yield
    except GraftError as error:
        if type(method).__name__ in str(error):
            raise
        raise type(error)(f"{type(method).__name__}: {error}") from error


def refuse_arguments(model: nn.Module, method: Method, name: str, head: bool | Literal["auto"]) -> None:
    """Refuse what is no model, no method and no name, and a model whose weights are elsewhere."""
    if not isinstance(model, nn.Module) or not isinstance(method, Method):
        raise BadInput(
            f"attach takes a model and a method, got {_seen(model)} and {_seen(method)}. A method is made by calling "
            "its class with hyperparameters; graft.method.named makes one from its name."
        )
    if head not in (True, False, "auto"):
        raise BadInput(f"head is True, False or 'auto', got {head!r}.")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"adapter name {name!r}: use lower-case letters, digits, '.', '_', '-', 64 at most, as in 'legal-v2'."
        )
    if offloaded := [path or "the model" for path, module in model.named_modules() if has_offloaded_params(module)]:
        raise Refused(
            f"{len(offloaded)} modules are offloaded ({offloaded[0]}, ...): their weights are not there when an "
            "adapter is made or runs. Load the model without offloading, or on several devices that hold all of it."
        )


def _seen(value: object) -> str:
    """An argument, for a message: a class and short values as they are written, the rest by kind."""
    short = isinstance(value, (type, str)) or value is None
    return f"{value!r:.60}" if short else f"a {type(value).__name__}"


def refuse_conflicts(record: Grafted, method: Method, name: str) -> None:
    """Refuse a name that is taken, a base that is merged, and neighbors of what trains the base's own tensors."""
    if name in record.adapters:
        raise BadInput(f"there is an adapter {name!r} already. Detach it first, or choose another name.")
    if merged := [other for other, adapter in record.adapters.items() if adapter.merged]:
        raise Refused(f"{merged[0]!r} is merged into the base. Unmerge it before attaching another adapter.")
    exclusive = any(term.in_place for term in method.methods())
    if exclusive and len(method.methods()) > 1:
        raise Refused("a method that trains the base's own tensors cannot be part of a sum. Attach it alone.")
    if (exclusive and record.adapters) or any(a.trained for a in record.adapters.values()):
        raise Refused(
            f"{type(method).__name__} and {', '.join(record.adapters)} cannot share a model: one of them trains the "
            "base's own tensors. Detach the other first."
        )


def refuse_in_vain(method: Method, placed: Sequence[Placed]) -> None:
    """Refuse a term of a sum whose work another undoes: it gives a parameter anew, after the first has changed it."""
    seen: dict[str, list[Placed]] = {}
    for item in placed:
        if item.site is None or item.head:
            continue
        for first in seen.setdefault(item.site.name, []):
            lost = _lost(first, item) if first.term != item.term else ()
            if lost:
                terms = [method.methods()[each.term] for each in (first, item)]
                one, other = (type(term).__name__ for term in terms)
                norms = [f"give {type(term).__name__} train_layernorm=False" for term in terms
                         if getattr(term, "train_layernorm", False)]  # fmt: skip
                ways = [] if _lost(item, first) else [f"put {other} first"]
                ways += norms or ["give them sites that have nothing in common"]
                raise Refused(
                    f"{one} and {other} both train the {lost[0]} of {item.site.name}, and {other} gives it anew, so "
                    f"that {one} would train in vain. Take one alone, or {' or '.join(ways)}."
                )
        seen[item.site.name].append(item)


def _lost(first: Placed, item: Placed) -> Sequence[str]:
    """Parameters that `first` trains by themselves, or all that it changes, where `item` gives these anew."""
    anew = [name for name in item.part.replaces if name in first.part.replaces]
    if anew or not item.part.replaces or "params" not in first.part.verbs() or first.site is None:
        return anew
    changed = first.part.params(first.site).keys()
    return list(changed) if changed <= set(item.part.replaces) else []


def refuse_broken_chain(method: Method, placed: Sequence[Placed]) -> None:
    """Refuse what changes the states between layers that one term runs as a chain."""
    chained = {(p.site.stack, p.site.layer): p for p in placed if p.part.chains and p.site is not None}
    for item in placed:
        site = item.site
        if site is None or site.role != "layer" or site.layer is None or item.part.chains or item.part.listens:
            continue
        next_one = site.layer + 1 if "after" in item.part.verbs() else site.layer
        links = [chained.get((site.stack, layer)) for layer in (next_one - 1, next_one)]
        if links[0] is not None and links[1] is not None:
            one, other = (type(method.methods()[each.term]).__name__ for each in (links[0], item))
            raise Refused(
                f"{other} changes what one layer hands to the next at {site.name}, and {one} runs the layers there as "
                "one chain, whose states have to be had again. Take one of them alone."
            )


def refuse_no_room(model: nn.Module, placed: Sequence[Placed]) -> None:
    """Refuse virtual tokens that take up all positions a model has, or at a layer more than there are."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    added: dict[int, int] = {}
    for item in placed:
        if item.site is not None and item.site.role != "layer":  # there they take no position of a row
            added[item.term] = max(added.get(item.term, 0), item.part.length)
        elif isinstance(positions, int) and item.part.length > positions:
            raise BadInput(
                f"{item.part.length:,} virtual tokens at {item.key}: this {type(model).__name__} has {positions:,} "
                "positions. Choose fewer."
            )
    if isinstance(positions, int) and sum(added.values()) >= positions > 0:
        raise BadInput(
            f"{sum(added.values()):,} virtual tokens leave none of the {positions:,} positions of this "
            f"{type(model).__name__} to a row. Choose fewer."
        )


def refuse_no_part(method: Method, site: Site | None, part: object) -> None:
    """Refuse what a method made that is no part, or a part at a site that does nothing there."""
    kind, where = type(method).__name__, f"at {site.name}" if site else "for all sites"
    if (entry := catalogue.outside(type(method))) is not None:
        kind = f"{entry.path or entry.origin}: {kind}"
    if not isinstance(part, Part):
        raise BadInput(f"{kind} made {_seen(part)} {where}: its `build` is to return a graft.Part.")
    if site is not None and not part.verbs():
        raise BadInput(
            f"{kind} made a {type(part).__name__} {where}, which would change nothing: it defines none of "
            f"{', '.join(VERBS)}. Give it one of them."
        )


def refuse_no_place(method: Method, sites: Sequence[Site], placed: Sequence[Placed]) -> None:
    """Refuse a method that does nothing at any of the sites that it was given."""
    if sites and not any(item.site is not None for item in placed):
        raise NotApplied(
            f"{type(method).__name__} does nothing at any of the {len(sites)} sites that {method.expression()!r} names "
            f"({sites[0].name}, ...). Choose other sites."
        )


def refuse_nothing(adapter: Adapter) -> None:
    """Refuse an adapter without a tensor that trains."""
    if next(adapter.named_parameters(), None) is None:
        raise NotApplied(
            f"{type(adapter.method).__name__} has nothing to train: it names no site and no tensor, and this "
            f"{type(adapter.model).__name__} has no task head that trains. Choose other hyperparameters, or head=True."
        )


def refuse_too_large(method: Method, sites: Sequence[Site], device: torch.device) -> None:
    """Refuse more than there is room for, before it is allocated; a method without a count is let through."""
    if device.type == "meta" or type(method).count is Method.count:
        return
    asked, free = FLOAT * method.drawn(sites), available(device)
    if asked > free:
        raise Refused(
            f"{method} asks for {asked:,} bytes of tensors, and {free:,} bytes are free on {device}. "
            "Choose smaller hyperparameters, or fewer sites."
        )
