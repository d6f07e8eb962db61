"""attach and detach: put a method on a model from outside, and take every trace of it off again."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from graft.anatomy import Anatomy, examine, select
from graft.anatomy.site import Site
from graft.attach import attention, hooks, in_place, positions, recompute, stack
from graft.attach.adapter import Adapter, Placed
from graft.attach.spot import Grafted, Job, Spot, grafted, require
from graft.errors import BadInput, NotApplied, Refused
from graft.method import Method, StandIn

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PAIRS = ("attention", "ffn")


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
    (classification, tagging, question answering) and never for a language-model head. `tokenizer`: for methods that begin
    from words.
    Raises NotApplied when a site the method asks for is missing in any layer, BadInput for an impossible name, Refused
    where the adapters on the model cannot be combined with this one. On any error the model is left as it was.
    """
    if not NAME.fullmatch(name):
        raise BadInput(f"adapter name {name!r}: use lower-case letters, digits, '.', '_', '-', 64 at most, as in 'legal-v2'.")
    record = grafted(model) or Grafted(model, examine(model))
    _refuse_conflicts(record, method, name)
    placed, remarks = _grow(record, method, head, tokenizer)
    adapter = Adapter(name, method, placed, model, remarks)
    plans = [(item, _jobs(item)) for item in placed]
    if not record.adapters:
        record.trainable = {path: parameter.requires_grad for path, parameter in model.named_parameters()}
        model.requires_grad_(False)
        model.__dict__["_grafted"] = record
        _surround(record)
    for item, jobs in plans:
        _install(record, name, item, jobs)
    record.adapters[name] = adapter
    record.watching[name] = set()
    if any(p.part.verbs() & {"keys_values", "tokens"} for p in placed):
        sites = [s.bind(model) for s in record.anatomy.sites if s.role == "attention"]
        sites = [site for site in sites if site.module is not None and attention.interfaced(site.module)]
        for site in sites:
            _spot(record, site.path).permanent = True
        attention.reroute(record, sites)
    in_place.begin(record, adapter)
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
    record.prefixes.pop(name, None)
    for path, spot in list(record.spots.items()):
        if spot.remove(name) and not spot.permanent:
            _uproot(record, path)
    if record.names == name or (isinstance(record.names, tuple) and name in record.names):
        record.names = next(reversed(record.adapters), None)
    record.call = None
    if not record.adapters:
        for path in list(record.spots):
            _uproot(record, path)
        attention.restore(record)
        recompute.unbind(model)
        for path, parameter in model.named_parameters():
            parameter.requires_grad_(record.trainable[path])
        del model.__dict__["_grafted"]


def _refuse_conflicts(record: Grafted, method: Method, name: str) -> None:
    if name in record.adapters:
        raise BadInput(f"there is an adapter {name!r} already. Detach it first, or choose another name.")
    if merged := [other for other, adapter in record.adapters.items() if adapter.merged]:
        raise Refused(f"{merged[0]!r} is merged into the base. Unmerge it before attaching another adapter.")
    exclusive = any(term.in_place for term in method.methods())
    if exclusive and len(method.methods()) > 1:
        raise Refused("a method that trains the base's own tensors cannot be part of a sum. Attach it alone.")
    if exclusive and record.adapters or any(a.trained for a in record.adapters.values()):
        raise Refused(
            f"{type(method).__name__} and {', '.join(record.adapters)} cannot share a model: one of them trains the base's "
            "own tensors. Detach the other first."
        )


def _grow(
    record: Grafted, method: Method, head: bool | Literal["auto"], tokenizer: Callable[[str], Any] | None
) -> tuple[tuple[Placed, ...], tuple[str, ...]]:
    """Build every part of every term, on the devices of their sites; and what the methods have to say about them."""
    model, placed, remarks = record.model, [], []
    device = next(model.parameters()).device
    with torch.device(device), torch.no_grad():
        for index, term in enumerate(method.methods()):
            sites = [site.bind(model, tokenizer) for site in _sites(record.anatomy, term)]
            remarks.extend(term.remarks(sites))
            mark = f"{index}." if len(method.methods()) > 1 else ""
            for site, part in term.grow(sites):
                key = site.name if site else f"shared.{sum(p.site is None for p in placed)}"
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


def _sites(anatomy: Anatomy, method: Method) -> Sequence[Site]:
    expression = method.expression()
    if not expression:
        return []
    selection = select(anatomy, expression)
    if selection.missing:
        raise NotApplied(f"{type(method).__name__} asks for {expression!r} and cannot reach all of it:\n{selection.missing}")
    return selection.sites


def _head_sites(anatomy: Anatomy, model: nn.Module, head: bool | Literal["auto"]) -> list[Site]:
    sites = [site.bind(model) for site in anatomy.sites if site.role == "head"]
    vocabularies = {s.bind(model).module.num_embeddings for s in anatomy.sites if s.role == "embed"}  # type: ignore[union-attr]
    language = any(site.outputs in vocabularies for site in sites)
    return sites if head is True or (head == "auto" and not language) else []


def _jobs(item: Placed) -> list[tuple[str, Job]]:
    """Where, and at which point, a part has something to do."""
    site, part = item.site, item.part
    if site is None:
        return []
    verbs, jobs = part.verbs(), []
    if "keys_values" in verbs:
        _expect(site.role == "attention", item, "keys and values belong at an attention site")
        assert site.module is not None
        if not attention.interfaced(site.module):
            raise NotApplied(
                f"{item.key}: {type(site.module).__name__} does not call transformers' attention interface, so virtual keys "
                "would be left out silently. Use a method that needs none, such as LoRA or prompt tuning."
            )
        jobs.append((site.path, Job("keys", site, part)))
    if "tokens" in verbs:
        _expect(site.role == "embed", item, "virtual tokens belong at an embed site")
        jobs.append((site.path, Job("tokens", site, part)))
    acts = verbs & {"before", "after", "params"}
    if acts and site.role in PAIRS:
        _expect(acts == {"after"}, item, f"{site.role} is a pair of points: only `after` makes sense there")
        assert site.entry is not None and site.exit is not None
        if site.entry != site.exit:
            jobs.append((site.entry, Job("entry", site, part)))
        if part.reads_residual and site.residual is not None:
            jobs.append((site.residual, Job("residual", site, part)))
        jobs.append((site.exit, Job("exit" if site.entry != site.exit else "site", site, part)))
    elif acts:
        _expect(not site.batch or "params" in acts, item, "inside fused experts only a method with `params` can act")
        jobs.append((site.path, Job("site", site, part)))
    return jobs


def _expect(condition: bool, item: Placed, rule: str) -> None:
    if not condition:
        raise Refused(f"{type(item.part).__qualname__} cannot act at {item.key}: {rule}. Choose other sites.")


def _install(record: Grafted, name: str, item: Placed, jobs: Sequence[tuple[str, Job]]) -> None:
    """Register a part on the module it acts at (virtual tokens and shared parts: on the stack) and hook it up."""
    home = jobs[-1][0] if jobs and jobs[-1][1].point != "tokens" else _stack_path(record, item.site)
    _spot(record, home).own(name, item.key, item.part)
    for path, job in jobs:
        if job.point == "tokens":
            _spot(record, home).add(name, job)
        elif job.point == "keys":
            _spot(record, path).add(name, job)
        else:
            _hook(_spot(record, path)).add(name, job)


def _stack_path(record: Grafted, site: Site | None) -> str:
    stacks = record.anatomy.stacks
    return next((s.path for s in stacks if site is not None and s.name == site.stack), stacks[0].path)


def _surround(record: Grafted) -> None:
    """Hooks that every grafted model has: around each stack, and where positions enter it."""
    for tower in record.anatomy.stacks:
        spot = _spot(record, tower.path)
        spot.stack, spot.permanent = tower, True
        spot.handles.append(_module(record, tower.path).register_forward_pre_hook(stack.begin, with_kwargs=True, prepend=True))
        trunk = _spot(record, tower.trunk)
        trunk.permanent = True
        trunk.handles.append(_module(record, tower.trunk).register_forward_hook(stack.finish, with_kwargs=True))
        for path, module in positions.modules(record.model, tower).items():
            spot = _spot(record, path)
            spot.permanent = True
            if isinstance(module, nn.Embedding):
                handle = module.register_forward_hook(positions.shift_learned, with_kwargs=True, prepend=True)
            else:
                handle = module.register_forward_pre_hook(positions.shift_rotary, with_kwargs=True, prepend=True)
            spot.handles.append(handle)


def _module(record: Grafted, path: str) -> nn.Module:
    return record.model.get_submodule(path)


def _spot(record: Grafted, path: str) -> Spot:
    """The spot at a module, made where there is none."""
    if path not in record.spots:
        spot = Spot(record, path)
        _module(record, path).add_module("graft", spot)
        record.spots[path] = spot
    return record.spots[path]


def _hook(spot: Spot) -> Spot:
    """Let the spot's module call `enter` and `leave`."""
    if not spot.acts:
        module = _module(spot.grafted, spot.path)
        spot.handles.append(module.register_forward_pre_hook(hooks.enter, with_kwargs=True, prepend=True))
        spot.handles.append(module.register_forward_hook(hooks.leave, with_kwargs=True, prepend=True))
        spot.acts = True
    return spot


def _uproot(record: Grafted, path: str) -> None:
    """Remove a spot and its hooks."""
    for handle in record.spots.pop(path).handles:
        handle.remove()
    del _module(record, path)._modules["graft"]
