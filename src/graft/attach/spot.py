"""What graft keeps on a model: one record for the whole of it, and one spot at each module where something acts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graft.anatomy import examine
from graft.anatomy.site import Site, Stack
from graft.attach.call import Call, KeysValues, Names
from graft.errors import BadInput
from graft.method import Part

if TYPE_CHECKING:
    from graft.anatomy import Anatomy
    from graft.attach.adapter import Adapter

Point = Literal["site", "entry", "residual", "exit", "input", "keys", "tokens", "deep", "around", "half"]


@dataclass(frozen=True)
class Job:
    """One thing one part does at one module: act on it, or let through what another module needs. `term`: which method
    of a sum the part is of."""

    point: Point
    site: Site
    part: Part
    term: int = 0

    def told(self, call: Call) -> Call:
        """The call as the part is told of it: what its method keeps there is apart from what others of the sum keep."""
        return replace(call, owner=str(self.term)) if self.term else call


@dataclass(frozen=True)
class Work:
    """All that one adapter does at one module, sorted by when it happens."""

    captures: tuple[Job, ...] = ()
    befores: tuple[Job, ...] = ()
    replacing: tuple[Job, ...] = ()
    afters: tuple[Job, ...] = ()
    keys: tuple[Job, ...] = ()
    tokens: tuple[Job, ...] = ()
    deep: tuple[Job, ...] = ()
    around: tuple[Job, ...] = ()

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> Work:
        """Sort jobs. `params` is used where a part has no cheaper form, and where two parts change the same
        parameters. What acts on a sub-layer's exit comes after what acts on the module there."""
        jobs = tuple(jobs)
        acting = sorted((job for job in jobs if job.point in ("site", "exit")), key=lambda job: job.point == "exit")
        changing = [job for job in acting if "params" in job.part.verbs()]
        slices = [job.site.name for job in changing]
        shared = len(set(slices)) < len(slices)
        # A fused projection as a whole, beside a share of it.
        shared = shared or (len(slices) > 1 and any(job.site.rows is None for job in changing))
        costly = any(
            job.site.batch or not job.part.verbs() & {"before", "after"} or _scaled(job.site.module) for job in changing
        )
        dense = costly or shared
        replacing = tuple(changing) if dense else ()
        return cls(
            captures=tuple(job for job in jobs if job.point in ("entry", "residual", "input")),
            befores=tuple(job for job in acting if "before" in job.part.verbs() and job not in replacing),
            replacing=replacing,
            afters=tuple(job for job in acting if "after" in job.part.verbs() and job not in replacing),
            keys=tuple(job for job in jobs if job.point == "keys"),
            tokens=tuple(job for job in jobs if job.point == "tokens"),
            deep=tuple(job for job in jobs if job.point == "deep"),
            around=tuple(job for job in jobs if job.point == "around"),
        )

    def awake(self) -> Work:
        """Without the parts that rest."""
        every = [getattr(self, each.name) for each in fields(self)]
        if not any(job.part.rests for jobs in every for job in jobs):
            return self
        return Work(*(tuple(job for job in jobs if not job.part.rests) for jobs in every))


def _scaled(module: nn.Module | None) -> bool:
    """Whether an embedding does more than look up, such as multiplying by the root of its width."""
    return isinstance(module, nn.Embedding) and type(module).forward is not nn.Embedding.forward


class Spot(nn.Module):
    """Lives on a module of the base as its child `graft`, and owns the parts that act there."""

    def __init__(self, grafted: Grafted, path: str) -> None:
        super().__init__()
        self.grafted = grafted
        self.path = path
        self.stack: Stack | None = None
        self.room: int | None = None
        self.acts = False
        self.permanent = False
        self.work: dict[str, Work] = {}
        self.jobs: dict[str, list[Job]] = {}
        self.handles: list[RemovableHandle] = []
        self.kept: tuple | None = None
        self.before: tuple | None = None  # the forward that the module's own instance had, where it has another now
        self.layer: str | None = None  # the path of the layer that runs in halves, where the module is in one
        self.running: tuple | None = None  # in a layer: which half of it is running, and for whom
        self.passable = False  # whether the module is passed over in a layer's second half

    def add(self, name: str, job: Job) -> None:
        """Let adapter `name` do one more thing here."""
        self.jobs.setdefault(name, []).append(job)
        self.work[name] = Work.of(self.jobs[name])

    def in_half(self) -> tuple | None:
        """Which half of the layer that the module is in is running, and for whom; None where it runs whole."""
        layer = None if self.layer is None else self.grafted.spots.get(self.layer)
        return None if layer is None else layer.running

    @property
    def passed(self) -> bool:
        """Whether nothing acts here just now: the layer is in its second half, and this belongs to the first."""
        half = self.in_half() if self.passable else None
        return half is not None and half[0] == "second"

    def own(self, name: str, key: str, part: Part) -> None:
        """Register a part as living here, so that devices, dtypes, sharding and checkpoints find it."""
        self.add_module(child(name, key), part)

    def remove(self, name: str) -> bool:
        """Forget adapter `name`; whether nothing is left here."""
        self.jobs.pop(name, None)
        self.work.pop(name, None)
        for key in [key for key in self._modules if key.startswith(f"{name.replace('.', '%')}:")]:
            del self._modules[key]
        return not self.jobs and not self._modules


@dataclass
class Grafted:
    """The record of everything graft has put on one model."""

    model: nn.Module
    anatomy: Anatomy
    adapters: dict[str, Adapter] = field(default_factory=dict)
    names: Names = None
    tasks: Names = None
    call: Call | None = None
    spots: dict[str, Spot] = field(default_factory=dict)
    trainable: dict[str, bool] = field(default_factory=dict)
    implementations: dict[int, tuple[object, str]] = field(default_factory=dict)
    prefixes: dict[str, dict[str, KeysValues]] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    watching: dict[str, set[str]] = field(default_factory=dict)

    def now(self) -> Call:
        """The call in progress, or one with the names in use when a module is run on its own."""
        return self.call if self.call is not None else Call(names=self.names, tasks=self.tasks)

    def ran(self, names: Iterable[str], path: str) -> None:
        """Note, for adapters that are watched, that the module at `path` ran."""
        for name in names:
            if name in self.watching:
                self.watching[name].add(path)

    def lengths(self, name: str, stack: str) -> tuple[int, int]:
        """How many virtual keys and how many virtual tokens adapter `name` adds to a stack's self-attention."""
        keys, tokens = 0, 0
        for placed in self.adapters[name].placed:
            if placed.site is not None and placed.site.stack == stack and not placed.site.cross:
                verbs = placed.part.verbs()
                keys = max(keys, placed.part.length if "keys_values" in verbs else 0)
                tokens += placed.part.length if "tokens" in verbs and placed.site.role == "embed" else 0
        return keys, tokens

    def deep(self, name: str, stack: str) -> dict[str, int]:
        """How many virtual tokens adapter `name` puts in front of what enters each layer of a stack, by path."""
        found: dict[str, int] = {}
        for placed in self.adapters[name].placed:
            site, part = placed.site, placed.part
            deep = site is not None and site.role == "layer" and "tokens" in part.verbs()
            if site is not None and deep and site.stack == stack and part.length and not part.rests:
                found[site.path] = found.get(site.path, 0) + part.length
        return found


def child(name: str, key: str) -> str:
    """The module name of a part: an adapter's name and the part's key, with no dots."""
    return f"{name.replace('.', '%')}:{key.replace('.', '_')}"


def grafted(model: nn.Module) -> Grafted | None:
    """The record on `model`, or None where nothing was ever attached."""
    return model.__dict__.get("_grafted")


def anatomy_of(model: nn.Module) -> Anatomy:
    """The anatomy of a model: the one recorded on it, or a new one where nothing was ever attached."""
    record = grafted(model)
    return record.anatomy if record else examine(model)


def require(model: nn.Module, name: str | None = None) -> Grafted:
    """The record on `model`; BadInput when there is none, or no adapter of that name."""
    record = grafted(model)
    if record is None:
        raise BadInput(f"nothing is attached to this {type(model).__name__}. Call graft.attach(model, method) first.")
    if name is not None and name not in record.adapters:
        raise BadInput(f"there is no adapter {name!r}; attached are: {', '.join(record.adapters) or 'none'}.")
    return record
