"""attach and detach: put a method on a model from outside, and take every trace of it off again."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from graft.anatomy import Anatomy, examine, select
from graft.anatomy.site import Site
from graft.attach import attention, in_place, recompute
from graft.attach.adapter import Adapter, Placed
from graft.attach.install import install, jobs_of, spot_at, surround, uproot
from graft.attach.refusals import (
    blamed,
    refuse_arguments,
    refuse_broken_chain,
    refuse_conflicts,
    refuse_in_vain,
    refuse_no_part,
    refuse_no_place,
    refuse_no_room,
    refuse_nothing,
    refuse_too_large,
)
from graft.attach.spot import Grafted, grafted, require
from graft.errors import NotApplied, Refused
from graft.method import Method, StandIn


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
    refuse_arguments(model, method, name, head)
    record = grafted(model) or Grafted(model, examine(model))
    refuse_conflicts(record, method, name)
    method, given = method.upon(record.adapters)
    placed, remarks = _grow(record, method, head, tokenizer)
    refuse_in_vain(method, placed)
    refuse_broken_chain(method, placed)
    refuse_no_room(model, placed)
    adapter = Adapter(name, method, placed, model, remarks)
    if given:
        adapter.begin(given)
    plans = []
    for item in placed:
        with blamed(method.methods()[item.term]):
            plans.append((item, jobs_of(item)))
    if not record.adapters:
        _begin(record)
    record.adapters[name] = adapter
    record.watching[name] = set()
    try:
        for item, jobs in plans:
            with blamed(method.methods()[item.term]):
                install(record, name, item, jobs)
        if any(item.part.verbs() & {"keys_values", "tokens"} for item in placed):
            _reroute(record)
        in_place.begin(record, adapter)
        refuse_nothing(adapter)
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
            refuse_too_large(term, sites, device)
            remarks.extend(term.remarks(sites))
            mark = f"{index}." if len(method.methods()) > 1 else ""
            own: list[Placed] = []
            with blamed(term):
                grown = term.grow(sites)
            for site, part in grown:
                refuse_no_part(term, site, part)
                key = site.name if site else f"shared.{sum(item.site is None for item in own)}"
                own.append(Placed(mark + key, site, part, index))
            refuse_no_place(term, sites, own)
            placed += own
        for site in _head_sites(record.anatomy, model, head):
            if not any(p.site is not None and p.site.path == site.path for p in placed):
                placed.append(Placed(f"head.{site.name}", site, StandIn(site), 0, head=True))
    for item in placed:
        if item.site is not None and item.site.module is not None:
            tensor = next(item.site.module.parameters(), None)
            if tensor is not None and tensor.device != device:
                item.part.to(tensor.device)
    return tuple(placed), tuple(remarks)


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
