"""An adapter: a method, its parts at their sites, and a name."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.anatomy.tree import ranges
from graft.method import Method, Part


@dataclass(frozen=True)
class Placed:
    """One part at one site. `key` names it within the adapter, whatever class the model is wrapped in."""

    key: str
    site: Site | None
    part: Part
    term: int = 0
    head: bool = False


@dataclass(frozen=True)
class Counts:
    """What an adapter costs, in numbers that are not the same number.

    trainable: elements that receive updates; changed: base entries that differ after merging; rank: upper bound on the
    rank of any one matrix update; stored: bytes on disk in the deployed form; head: trainable elements of the task
    head, which the others leave out; total: parameters of the base without graft.
    """

    trainable: int
    changed: int
    rank: int
    stored: int
    head: int
    total: int


@dataclass(repr=False)
class Adapter:
    """What `graft.attach` returns."""

    name: str
    method: Method
    placed: tuple[Placed, ...]
    model: nn.Module
    remarks: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    originals: dict[str, Tensor] = field(default_factory=dict)
    tuned_in_place: bool = True
    merged: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        reached = ", ".join(f"{role} {number}" for role, number in self.coverage.items()) or "the head alone"
        elements = sum(parameter.numel() for parameter in self.parameters())
        return (
            f"<adapter {self.name!r} on {type(self.model).__name__}: {reached}; {elements:,} elements train"
            f"{'; merged' if self.merged else ''}\n {self.method}>"
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of rows that it tells apart, by name."""
        return next((known for term in self.method.methods() if (known := getattr(term, "tasks", ()))), ())

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts by key (`decoder.3.q`)."""
        return {placed.key: placed.part for placed in self.placed}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor that trains, by a name that does not depend on the class the model is wrapped in."""
        for placed in self.placed:
            for name, parameter in placed.part.named_parameters():
                yield f"{placed.key}.{name}", parameter
        for path in self.trained:
            yield path, self.model.get_parameter(path)

    def parameters(self) -> list[nn.Parameter]:
        """The tensors that train."""
        return [parameter for _, parameter in self.named_parameters() if parameter.requires_grad]

    def terms(self) -> Iterator[tuple[Method, list[Part]]]:
        """Each method of the sum with its own parts; heads go with the first."""
        for index, method in enumerate(self.method.methods()):
            yield method, [placed.part for placed in self.placed if placed.term == index]

    def deployed(self) -> dict[str, Part]:
        """The parts that are stored and served, by key."""
        found: dict[str, Part] = {}
        for index, method in enumerate(self.method.methods()):
            found |= method.deployed({p.key: p.part for p in self.placed if p.term == index and not p.head})
        return found | {p.key: p.part for p in self.placed if p.head}

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Let parts whose sizes training decides take those of tensors, by name, that are about to be put in."""
        for key, part in self.parts.items():
            part.resize({name.removeprefix(f"{key}."): s for name, s in shapes.items() if name.startswith(f"{key}.")})

    @torch.no_grad()
    def begin(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors into the parts, by the key of the part and the name in it."""
        self.resize({name: tensor.shape for name, tensor in tensors.items()})
        for key, part in self.parts.items():
            for name, live in part.state_dict().items():
                if (given := tensors.get(f"{key}.{name}")) is not None:
                    live.copy_(given)

    @property
    def coverage(self) -> dict[str, int]:
        """How many sites of each role were reached. Attaching refuses when one that was asked for is missing."""
        roles: Counter[str] = Counter()
        for placed in self.placed:
            if placed.site is not None and not placed.head:
                roles[placed.site.role] += 1
        if self.trained:
            roles["tensors in place"] = len(self.trained)
        return dict(roles)

    def reach(self) -> list[str]:
        """Sites asked for and sites hooked, a line for each stack and role, with their layers."""
        asked: dict[str, list[Placed]] = {}
        for placed in self.placed:
            if placed.site is not None and not placed.head:
                cross = "cross-attention " if placed.site.cross else ""
                asked.setdefault(f"{placed.site.stack} {cross}{placed.site.role}", []).append(placed)
        here, lines = {id(module) for module in self.model.modules()}, []
        for role, items in asked.items():
            hooked = [p.site for p in items if p.site is not None and id(p.part) in here]
            layers = sorted({site.layer for site in hooked if site.layer is not None})
            where = f", layers {ranges(layers)}" if layers else ""
            lines.append(f"{role}: {len(hooked)} of {len(items)} sites{where}")
        return lines + ([f"{len(self.trained)} tensors of the base in place"] if self.trained else [])

    @property
    def counts(self) -> Counts:
        """Trainable, changed, rank, stored bytes and head, from the live tensors. See `Counts`."""
        parts = [placed for placed in self.placed if not placed.head]
        heads = [placed for placed in self.placed if placed.head]
        tuned = [self.model.get_parameter(path) for path in self.trained]
        ranks = [placed.part.bound(placed.site) for placed in parts if placed.site is not None]
        with torch.no_grad():
            changed = sum(placed.part.changed(placed.site) for placed in parts if placed.site is not None)
        stored = sum(
            tensor.numel() * tensor.element_size()
            for part in self.deployed().values()
            for tensor in part.state_dict().values()
        )
        return Counts(
            trainable=_elements(placed.part for placed in parts) + sum(p.numel() for p in tuned),
            changed=changed + sum(p.numel() for p in tuned),
            rank=max([*ranks, *(min(p.shape) for p in tuned if p.dim() > 1)], default=0),
            stored=stored + sum(p.numel() * p.element_size() for p in tuned),
            head=_elements(placed.part for placed in heads),
            total=base_parameters(self.model),
        )


def _elements(parts: Iterator[Part]) -> int:
    return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)


def base_parameters(model: nn.Module) -> int:
    """Parameters of the model without anything graft added, shared storage counted once."""
    return sum(p.numel() for name, p in model.named_parameters() if ".graft." not in f".{name}")
