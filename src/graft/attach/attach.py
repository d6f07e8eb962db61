"""attach and detach: put a method on a model from outside, and take every trace of it off again."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from accelerate.utils import has_offloaded_params
from torch import nn

from graft.anatomy import Anatomy, examine, select
from graft.anatomy.site import Site
from graft.attach import attention, in_place, recompute
from graft.attach.adapter import Adapter, Placed
from graft.attach.install import install, jobs_of, spot_at, surround, uproot
from graft.attach.spot import Grafted, grafted, require
from graft.errors import BadInput, NotApplied, Refused
from graft.memory import available
from graft.method import Method, StandIn

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FLOAT = torch.float32.itemsize  # what parts are made of, whatever the base is


@torch.inference_mode(False)  # or nothing made here could ever train
def attach(
    model: nn.Module,
    method: Method,
    name: str = "default",
    *,
    head: bool | Literal["auto"] = "auto",
    tokenizer: Callable[[str], Any] | None = None,
) -> Adapter:
    """Put `method` on `model` under `name`, make it the adapter in use, and freeze the base.

    `head`: train the task head too, through copies that belong to the adapter; "auto" does so for a task head
    (classification, tagging, question answering) and never for a language-model head. `tokenizer`: for methods that
    begin from words.
    Raises NotApplied when a site the method asks for is missing in any layer, BadInput for impossible arguments,
    Refused where the adapters on the model cannot be combined with this one, where weights of the base are offloaded,
    and where memory does not suffice. On any error the model is left as it was.
    """
    _refuse_arguments(model, method, name, head)
    record = grafted(model) or Grafted(model, examine(model))
    _refuse_conflicts(record, method, name)
    method, given = method.upon(record.adapters)
    placed, remarks = _grow(record, method, head, tokenizer)
    _refuse_two_owners(method, placed)
    _refuse_no_room(model, placed)
    adapter = Adapter(name, method, placed, model, remarks)
    if given:
        adapter.begin(given)
    plans = [(item, jobs_of(item)) for item in placed]
    if not record.adapters:
        _begin(record)
    record.adapters[name] = adapter
    record.watching[name] = set()
    try:
        for item, jobs in plans:
            install(record, name, item, jobs)
        if any(item.part.verbs() & {"keys_values", "tokens"} for item in placed):
            _reroute(record)
        in_place.begin(record, adapter)
        _refuse_nothing(adapter)
    except BaseException:
        detach(model, name)
        raise
    record.names, record.call = name, None
    return adapter


def detach(model: nn.Module, name: str = "default") -> None:
    """Take adapter `name` off: outputs, state-dict keys, `requires_grad` and hooks are as before it was attached."""
    record = require(model, name)
    adapter = record.adapters[name]
    if adapter.merged:
        raise Refused(f"{name!r} is merged into the base. Call graft.unmerge(model, {name!r}) first.")
    in_place.end(record, adapter)
    del record.adapters[name]
    record.watching.pop(name, None)
    for key in [key for key in record.prefixes if key.partition("/")[0] == name]:
        del record.prefixes[key]
    for path, spot in list(record.spots.items()):
        if spot.remove(name) and not spot.permanent:
            uproot(record, path)
    if record.names == name or (isinstance(record.names, tuple) and name in record.names):
        record.names = next(reversed(record.adapters), None)
    record.call = None
    if not record.adapters:
        for path in list(record.spots):
            uproot(record, path)
        attention.restore(record)
        recompute.unbind(model)
        for path, parameter in model.named_parameters():
            parameter.requires_grad_(record.trainable[path])
        del model.__dict__["_grafted"]


def _begin(record: Grafted) -> None:
    """What the first adapter on a model needs, and the last one to leave takes back."""
    record.trainable = {path: parameter.requires_grad for path, parameter in record.model.named_parameters()}
    record.model.requires_grad_(False)
    record.model.__dict__["_grafted"] = record
    surround(record)


def _reroute(record: Grafted) -> None:
    """Bring every attention that can be reached under graft, for virtual tokens and keys."""
    sites = [site.bind(record.model) for site in record.anatomy.sites if site.role == "attention"]
    sites = [site for site in sites if site.module is not None and attention.interfaced(site.module)]
    for site in sites:
        spot_at(record, site.path).permanent = True
    attention.reroute(record, sites)


def _refuse_arguments(model: nn.Module, method: Method, name: str, head: bool | Literal["auto"]) -> None:
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


def _refuse_conflicts(record: Grafted, method: Method, name: str) -> None:
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


def _refuse_two_owners(method: Method, placed: Sequence[Placed]) -> None:
    """Refuse two terms of a sum that give one parameter anew: only the last would count, and the other never train."""
    owners: dict[tuple[str, str], Placed] = {}
    for item in placed:
        for name in item.part.replaces if item.site is not None and not item.head else ():
            first = owners.setdefault((item.site.name if item.site else "", name), item)
            if first is not item:
                both = [type(method.methods()[each.term]).__name__ for each in (first, item)]
                raise Refused(
                    f"{' and '.join(both)} both train the {name} of {item.key.partition('.')[2]}, and one would do so "
                    "in vain. Take one alone, or give them sites that have nothing in common."
                )


def _refuse_no_room(model: nn.Module, placed: Sequence[Placed]) -> None:
    """Refuse virtual tokens that take up all positions a model has."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    added: dict[int, int] = {}
    for item in placed:
        if item.site is not None and item.site.role != "layer":  # there they take no position of a row
            added[item.term] = max(added.get(item.term, 0), item.part.length)
    if isinstance(positions, int) and sum(added.values()) >= positions > 0:
        raise BadInput(
            f"{sum(added.values()):,} virtual tokens leave none of the {positions:,} positions of this "
            f"{type(model).__name__} to a row. Choose fewer."
        )


def _refuse_nothing(adapter: Adapter) -> None:
    if next(adapter.named_parameters(), None) is None:
        raise NotApplied(
            f"{type(adapter.method).__name__} has nothing to train: it names no site and no tensor, and this "
            f"{type(adapter.model).__name__} has no task head that trains. Choose other hyperparameters, or head=True."
        )


def _grow(
    record: Grafted, method: Method, head: bool | Literal["auto"], tokenizer: Callable[[str], Any] | None
) -> tuple[tuple[Placed, ...], tuple[str, ...]]:
    """Build every part of every term, on the devices of their sites; and what the methods have to say about them."""
    model = record.model
    placed: list[Placed] = []
    remarks: list[str] = []
    device = next(model.parameters()).device
    with torch.device(device), torch.no_grad():
        for index, term in enumerate(method.methods()):
            sites = [site.bind(model, tokenizer) for site in _sites(record.anatomy, term)]
            _refuse_too_large(term, sites, device)
            remarks.extend(term.remarks(sites))
            mark = f"{index}." if len(method.methods()) > 1 else ""
            for site, part in term.grow(sites):
                key = site.name if site else f"shared.{sum(p.site is None and p.term == index for p in placed)}"
                placed.append(Placed(mark + key, site, part, index))
        for site in _head_sites(record.anatomy, model, head):
            if not any(p.site is not None and p.site.path == site.path for p in placed):
                placed.append(Placed(f"head.{site.name}", site, StandIn(site), 0, head=True))
    for item in placed:
        if item.site is not None and item.site.module is not None:
            tensor = next(item.site.module.parameters(), None)
            if tensor is not None and tensor.device != device:
                item.part.to(tensor.device)
    return tuple(placed), tuple(remarks)


def _refuse_too_large(method: Method, sites: Sequence[Site], device: torch.device) -> None:
    """Refuse more than there is room for, before it is allocated; a method without a count is let through."""
    if device.type == "meta" or type(method).count is Method.count:
        return
    asked, free = FLOAT * method.drawn(sites), available(device)
    if asked > free:
        raise Refused(
            f"{method} asks for {asked:,} bytes of tensors, and {free:,} bytes are free on {device}. "
            "Choose smaller hyperparameters, or fewer sites."
        )


def _sites(anatomy: Anatomy, method: Method) -> Sequence[Site]:
    expression = method.expression()
    if not expression:
        return []
    selection = select(anatomy, expression)
    if selection.missing:
        missing = "\n".join(map(str, selection.missing))
        raise NotApplied(f"{type(method).__name__} asks for {expression!r} and cannot reach all of it:\n{missing}")
    return selection.sites


def _head_sites(anatomy: Anatomy, model: nn.Module, head: bool | Literal["auto"]) -> list[Site]:
    sites = [site.bind(model) for site in anatomy.sites if site.role == "head"]
    vocabularies = {s.bind(model).module.num_embeddings for s in anatomy.sites if s.role == "embed"}
    language = any(site.outputs in vocabularies for site in sites)
    return sites if head is True or (head == "auto" and not language) else []
