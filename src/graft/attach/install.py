"""Putting parts where they act: which module, which point, which hooks; and taking them out again."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from graft.anatomy.site import Site
from graft.attach import around, attention, hooks, positions, stack
from graft.attach.adapter import Placed
from graft.attach.spot import Grafted, Job, Spot
from graft.errors import NotApplied, Refused

PAIRS = ("attention", "ffn")


def jobs_of(item: Placed) -> list[tuple[str, Job]]:
    """Where, and at which point, a part has something to do."""
    site, part = item.site, item.part
    if site is None:
        return []
    verbs, jobs = part.verbs(), []
    _expect(
        site.role in PAIRS or not part.reads_residual,
        item,
        "it reads a residual stream, which only attention and ffn have",
    )
    job = partial(Job, site=site, part=part, term=item.term)
    if "keys_values" in verbs:
        _expect(site.role == "attention", item, "keys and values belong at an attention site")
        assert site.module is not None
        if not attention.interfaced(site.module):
            raise NotApplied(
                f"{item.key}: {type(site.module).__name__} does not call transformers' attention interface, so virtual "
                "keys would be left out silently. Use a method that adds none."
            )
        if part.reads_input:
            jobs.append((site.path, job("input")))
        jobs.append((site.path, job("keys")))
    if "tokens" in verbs:
        _expect(site.role in ("embed", "layer"), item, "virtual tokens belong at an embed or a layer site")
        jobs.append((site.path, job("deep" if site.role == "layer" else "tokens")))
    if "around" in verbs:
        _expect(site.role == "layer", item, "only a layer can be run in another way")
        jobs.append((site.path, job("around")))
    acts = verbs & {"before", "after", "params"}
    if acts and site.role in PAIRS:
        _expect(acts == {"after"}, item, f"{site.role} is a pair of points: only `after` makes sense there")
        assert site.entry is not None and site.exit is not None
        if site.entry != site.exit:
            jobs.append((site.entry, job("entry")))
        if part.reads_residual and site.residual is not None:
            jobs.append((site.residual, job("residual")))
        jobs.append((site.exit, job("exit" if site.entry != site.exit else "site")))
    elif acts:
        _expect(not site.batch or "params" in acts, item, "inside fused experts only a method with `params` can act")
        if site.batch:
            # A linear layer reads a bias that is new; fused experts read the tensors they have and no other.
            foreign = [name for name in part.params(site) if getattr(site.module, name, None) is None]
            _expect(not foreign, item, f"fused experts have no {', '.join(foreign)}")
        jobs.append((site.path, job("site")))
    return jobs


def _expect_reachable(record: Grafted, item: Placed, site: Site) -> None:
    """Refuse virtual tokens at a layer that is fed no embeddings, or whose keys and values are out of reach."""
    stack = next(each for each in record.anatomy.stacks if each.name == site.stack)
    _expect(stack.embed is not None, item, f"the {stack.name} reads no token embeddings")
    for other in record.anatomy.sites:
        if other.role == "attention" and other.layer == site.layer and other.stack == site.stack:
            module = module_at(record, other.path)
            if not attention.interfaced(module):
                raise NotApplied(
                    f"{item.key}: {type(module).__name__} does not call transformers' attention interface, so virtual "
                    "tokens would be left out silently. Use a method that adds none."
                )


def _expect_whole_rows(record: Grafted, item: Placed) -> None:
    """Refuse virtual tokens made of a row where its tokens must not see those behind them."""
    stack = next(each for each in record.anatomy.stacks if item.site is not None and each.name == item.site.stack)
    if item.part.reads_row is not None and stack.causal:
        raise Refused(
            f"virtual tokens ({item.key}) are made of the whole row, and every token of this {stack.name} would "
            "learn from them what stands behind it, in training the answer. Use an encoder or an encoder-decoder, or "
            "a method with the same tokens for every row, such as prompt tuning."
        )


def _expect(condition: bool, item: Placed, rule: str) -> None:
    if not condition:
        raise Refused(f"{type(item.part).__qualname__} cannot act at {item.key}: {rule}. Choose other sites.")


def install(record: Grafted, name: str, item: Placed, jobs: Sequence[tuple[str, Job]]) -> None:
    """Register a part on the module it acts at (virtual tokens and shared parts: on the stack) and hook it up."""
    home = jobs[-1][0] if jobs and jobs[-1][1].point != "tokens" else _stack_path(record, item.site)
    spot_at(record, home).own(name, item.key, item.part)
    item.part.train(module_at(record, home).training)  # or its dropout would be on in a model that is evaluated
    for path, job in jobs:
        if job.point == "tokens":
            _expect_whole_rows(record, item)
            spot_at(record, home).add(name, job)
        elif job.point == "deep":
            _expect_reachable(record, item, job.site)
            _hook(spot_at(record, path)).add(name, job)
        elif job.point == "around":
            _run_by(record, _hook(spot_at(record, path)), name, job)
        elif job.point == "keys":
            spot_at(record, path).add(name, job)
        else:
            _hook(spot_at(record, path)).add(name, job)


def _run_by(record: Grafted, spot: Spot, name: str, job: Job) -> None:
    """Let a part run the layer at a spot; where it does so in halves, have the modules between and beside them know."""
    if any(other.point == "around" for other in spot.jobs.get(name, ())):
        raise Refused(f"two parts of {name!r} each want to run {spot.path} in their own way: leave one of them out.")
    found = around.halves(record, job.site) if job.part.halves else []
    spot.add(name, job)
    around.replace_forward(spot, module_at(record, spot.path), around.Instead)
    for path, what in found:
        inside, module = spot_at(record, path), module_at(record, path)
        if inside.layer is None:
            inside.layer, inside.passable = spot.path, what != "middle"
            if what in ("attention", "sub-layer"):
                kind = around.Passed if what == "attention" else around.PassedWhole
                around.replace_forward(inside, module, kind)
            elif what == "middle":
                inside.handles.append(module.register_forward_pre_hook(around.halt, with_kwargs=True, prepend=True))
            else:
                inside.handles.append(module.register_forward_hook(around.silence if what == "exit" else around.bypass))
        inside.add(name, replace(job, point="half"))


def _stack_path(record: Grafted, site: Site | None) -> str:
    stacks = record.anatomy.stacks
    return next((s.path for s in stacks if site is not None and s.name == site.stack), stacks[0].path)


def surround(record: Grafted) -> None:
    """Hooks that every grafted model has: around each stack, and where positions enter it."""
    for tower in record.anatomy.stacks:
        spot = spot_at(record, tower.path)
        spot.stack, spot.permanent = tower, True
        spot.handles.append(
            module_at(record, tower.path).register_forward_pre_hook(stack.begin, with_kwargs=True, prepend=True)
        )
        trunk = spot_at(record, tower.trunk)
        trunk.permanent = True
        if tower.trunk != tower.path:
            before = module_at(record, tower.trunk).register_forward_pre_hook(stack.shorten, with_kwargs=True)
            trunk.handles.append(before)
        trunk.handles.append(module_at(record, tower.trunk).register_forward_hook(stack.finish, with_kwargs=True))
        found = positions.modules(record.model, tower)
        spot_at(record, tower.path).room = positions.room(found)
        for path, module in found.items():
            spot = spot_at(record, path)
            spot.permanent = True
            if isinstance(module, nn.Embedding):
                handle = module.register_forward_hook(positions.shift_learned, with_kwargs=True, prepend=True)
            else:
                handle = module.register_forward_pre_hook(positions.shift_rotary, with_kwargs=True, prepend=True)
            spot.handles.append(handle)


def module_at(record: Grafted, path: str) -> nn.Module:
    """The module of the base at a path."""
    return record.model.get_submodule(path)


def spot_at(record: Grafted, path: str) -> Spot:
    """The spot at a module, made where there is none."""
    if path not in record.spots:
        spot = Spot(record, path)
        module_at(record, path).add_module("graft", spot)
        record.spots[path] = spot
    return record.spots[path]


def _hook(spot: Spot) -> Spot:
    """Let the spot's module call `enter` and `leave`."""
    if not spot.acts:
        module = module_at(spot.grafted, spot.path)
        spot.handles.append(module.register_forward_pre_hook(hooks.enter, with_kwargs=True, prepend=True))
        spot.handles.append(module.register_forward_hook(hooks.leave, with_kwargs=True, prepend=True))
        spot.acts = True
    return spot


def uproot(record: Grafted, path: str) -> None:
    """Remove a spot and its hooks."""
    spot = record.spots.pop(path)
    for handle in spot.handles:
        handle.remove()
    around.restore_forward(spot, module_at(record, path))
    del module_at(record, path)._modules["graft"]
