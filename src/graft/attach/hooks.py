"""The two hooks that act at a module. Functions of the module alone, never closures: they pickle, copy and shard."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.attach.call import Call
from graft.attach.proxy import Likeness, Proxy, in_dtype
from graft.attach.spot import Spot, Work
from graft.errors import Refused

LEFT_AT = {"exit": ("entry", "residual"), "input": ("input",)}  # what was captured has served when these are left


def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Before the module runs: let parts see or change its input; starve it where its parameters are replaced."""
    spot: Spot = module.graft  # type: ignore[assignment]
    call = spot.grafted.now()
    works = [spot.work[name].awake() for name in call.used() if name in spot.work]
    if not works or spot.passed:
        return None
    x = first(args, kwargs)
    if call.deep and works[0].deep:
        own = torch.cat([in_dtype(job.part, x.dtype).tokens(job.told(call)).to(x.dtype) for job in works[0].deep])
        return swap(args, kwargs, nn.functional.pad(own, (0, 0, x.shape[1] - len(own), 0))[None])
    for work in works:
        for job in work.captures:
            call.capture(job.point, job.site, x)
    if call.mixed:
        return None
    work, changed = works[0], x
    for job in work.befores:
        changed = in_dtype(job.part, changed.dtype).before(changed, job.site, job.told(call))
    if work.replacing:
        spot.kept = swap(args, kwargs, changed)
        # An empty batch costs the base no product; `leave` runs its forward on the replaced parameters.
        return starved(*spot.kept, len(x))
    return None if changed is x else swap(args, kwargs, changed)


def leave(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
    """After the module ran: replace what leaves it by what the parts make of it."""
    spot: Spot = module.graft  # type: ignore[assignment]
    call = spot.grafted.now()
    used = [name for name in call.used() if name in spot.work]
    if not used or spot.passed:
        return None
    spot.grafted.ran(used, spot.path)
    if call.mixed:
        changed = _by_rows(module, spot, call, used, args, kwargs, output)
    else:
        if spot.kept is not None:
            (args, kwargs), spot.kept = spot.kept, None
        changed = _act(module, spot.work[used[0]].awake(), call, args, kwargs, output)
    for name in used:
        for job in (*spot.work[name].captures, *spot.work[name].afters):
            for point in LEFT_AT.get(job.point, ()):
                for kept in (call.captured, call.narrowed.get(name, {})):
                    kept.pop((point, job.site.name), None)
    return changed


def _act(module: nn.Module, work: Work, call: Call, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
    """One adapter on all of its rows."""
    if work.replacing:
        output = replaced(module, work).run(*args, **kwargs)
    if not work.afters:
        return output
    y = first_of(output)
    for job in work.afters:
        site = job.site
        x = first(args, kwargs) if job.point == "site" else call.captured["entry", site.name]
        share = y if site.rows is None else site.rows.take(y, -1)
        # Under autocast a part may answer in half precision to a share that is not.
        new = in_dtype(job.part, share.dtype).after(x, share, site, job.told(call)).to(share.dtype)
        y = new if site.rows is None else site.rows.put(y, new, -1)
    return with_first(output, y)


def _by_rows(
    module: nn.Module, spot: Spot, call: Call, used: list[str], args: tuple, kwargs: dict[str, Any], output: Any
) -> Any:
    """Rows of one batch that use different adapters: each adapter on its own rows, the others as the base left them."""
    x, y = first(args, kwargs), first_of(output)
    for name in used:
        work = spot.work[name].awake()
        if isinstance(x, nn.Parameter):
            raise Refused(
                f"rows vanish inside {spot.path}: a table of the model's own passes it, which all rows share. Use one "
                "adapter for the whole batch there, not one per row."
            )
        if any(job.site.batch for job in (*work.replacing, *work.afters)):
            raise Refused(
                f"rows vanish inside {spot.path}: use one adapter for the whole batch there, not one per row."
            )
        rows = call.rows_of(name, len(x), x.device)
        assert rows is not None
        own = narrow(call, name, rows, len(x))
        own_args, own_kwargs = swap(args, kwargs, x[rows])
        # Whatever module of the base a part runs sees these rows alone.
        outer, spot.grafted.call = spot.grafted.call, own
        try:
            for job in work.befores:
                changed = in_dtype(job.part, x.dtype).before(first(own_args, own_kwargs), job.site, job.told(own))
                own_args, own_kwargs = swap(own_args, own_kwargs, changed)
            part = y[rows] if not work.befores else first_of(type(module).forward(module, *own_args, **own_kwargs))
            new = first_of(_act(module, work, own, own_args, own_kwargs, part))
        finally:
            spot.grafted.call = outer
        y = y.index_copy(0, rows, new.to(y.dtype))
    return with_first(output, y)


def narrow(call: Call, name: str, rows: Tensor, size: int) -> Call:
    """The call as the rows of one adapter see it."""
    captured = call.narrowed.setdefault(name, {})
    captured |= {key: value[rows] for key, value in call.captured.items() if len(value) == size}

    def own(whole: Tensor | None) -> Tensor | None:
        return None if whole is None else whole[call.rows_of(name, len(whole), whole.device)]

    return replace(
        call,
        names=name,
        tasks=call.tasks_of(name),
        captured=captured,
        mask=own(call.mask),
        memory_mask=own(call.memory_mask),
        embeds=own(call.embeds),
        states=own(call.states),
        rows=rows,
        batch=size,
    )


def replaced(module: nn.Module, work: Work) -> Proxy:
    """The module with new values for its parameters, assembled from all parts that change them, left to right."""
    proxy = Likeness(module, {}) if isinstance(module, nn.Embedding) else Proxy(module, {})
    for job in work.replacing:
        site = replace(job.site, module=proxy)
        for name, value in job.part.params(site).items():
            proxy.replace(name, placed(site, name, value))
    return proxy


def placed(site: Site, name: str, value: Tensor) -> Tensor:
    """The module's tensor `name` with the site's share replaced; a bias the module lacks starts as zeros."""
    stored = getattr(site.module, name, None)
    if stored is None:
        rows = site.rows
        width = site.outputs if rows is None else rows.groups * rows.per_group * rows.width
        stored = value.new_zeros(width, dtype=site.weight.dtype)
    return site.place(name, stored, value.to(stored.dtype))


def first(args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """The tensor a module is called with."""
    if args:
        return args[0]
    return next(value for value in kwargs.values() if isinstance(value, torch.Tensor))


def swap(args: tuple, kwargs: dict[str, Any], x: Tensor) -> tuple[tuple, dict[str, Any]]:
    """The same arguments with another first tensor."""
    if args:
        return (x, *args[1:]), kwargs
    name = next(name for name, value in kwargs.items() if isinstance(value, torch.Tensor))
    return args, {**kwargs, name: x}


def starved(args: tuple, kwargs: dict[str, Any], size: int) -> tuple[tuple, dict[str, Any]]:
    """The same arguments with no rows left in them."""

    def empty(value: Any) -> Any:
        return value[:0] if isinstance(value, torch.Tensor) and value.dim() and len(value) == size else value

    return tuple(map(empty, args)), {name: empty(value) for name, value in kwargs.items()}


def first_of(output: Any) -> Tensor:
    """The hidden states in what a module returned: a tensor, a tuple that begins with one, or a model output."""
    return output if isinstance(output, torch.Tensor) else output[0]


def with_first(output: Any, y: Tensor) -> Any:
    """The same output with other hidden states."""
    if isinstance(output, torch.Tensor):
        return y
    if isinstance(output, tuple):
        return (y, *output[1:])
    name = next(iter(output.keys()))
    # Some models read the last of the hidden states instead of the output that is the same tensor.
    hidden = output.get("hidden_states")
    if hidden and hidden[-1] is output[name]:
        output["hidden_states"] = (*hidden[:-1], y)
    output[name] = y
    return output
