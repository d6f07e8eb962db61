"""AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247): several trained adapters, mixed by an attention over them.

    FFN(a) ← FFN(a) + Σₙ αₙ zₙ V,   α = softmaxₙ((q Q + b_Q)·(zₙ K + b_K)),   Q, K, V ∈ R^{d×d}
    loss + 0.01 Σ ‖I − V‖²

zₙ is what adapter n adds, and q what the adapters read, as in AdapterHub: LN₂(FFN(a) + a) for those that read it, else
FFN(a). Q and K start N(0, 0.02²), V as the identity with 1e-6 beside its diagonal; scores are not divided by √d.
Whoever trains by a loop of their own adds `during("loss", …)` to the loss.

The adapters are on the model, and named. A fusion has frozen copies of them: once attached it needs them no more, and
it is saved and loaded with all that it fuses (`hosts` says how they were made). Nothing merges: α depends on the token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.method import Method, Part, check, normal, zeros
from graft.methods import read, spelled

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter
    from graft.attach.call import Call

BESIDE = 1e-6  # the start of V off its diagonal


class Fused(Part):
    """The adapters of one site, and the attention over what they add."""

    def __init__(self, width: int, adapters: Sequence[Part]) -> None:
        super().__init__()
        self.Q, self.K = normal(width, width, std=0.02), normal(width, width, std=0.02)
        self.b_Q, self.b_K = zeros(width), zeros(width)
        self.V = nn.Parameter(torch.full((width, width), BESIDE).fill_diagonal_(1.0))
        self.names = [f"adapter_{i}" for i in range(len(adapters))]
        for name, part in zip(self.names, adapters, strict=True):
            self.add_module(name, part.requires_grad_(False))
        self.reads_residual = any(part.reads_residual for part in adapters)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        q = call.normed(site, y) if self.reads_residual else y
        # What an adapter keeps in the cache is kept under its own name.
        calls = {name: replace(call, names=f"{call.names}/{name}") for name in self.names}
        z = torch.stack([getattr(self, name).after(x, y, site, own) - y for name, own in calls.items()], -2)
        scores = (F.linear(q, self.Q, self.b_Q)[..., None, :] * F.linear(z, self.K, self.b_K)).sum(-1)
        return y + F.linear((scores.softmax(-1)[..., None] * z).sum(-2), self.V)

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        for name in self.names:
            part = self.get_submodule(name)
            assert isinstance(part, Part)
            part.resize({key.removeprefix(f"{name}."): s for key, s in shapes.items() if key.startswith(f"{name}.")})
            part.requires_grad_(False)


@dataclass(frozen=True)
class AdapterFusion(Method):
    """An attention over adapters that are on the model, which stay as they are."""

    adapters: Annotated[tuple[str, ...], "names of the adapters, which are on the model"] = ()
    penalty: Annotated[float, "factor of the regularizer, which holds V near the identity"] = 0.01
    hosts: Annotated[tuple[str, ...], "how the adapters were made, as is stored; given, new ones are made so"] = ()

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 5e-5
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.penalty >= 0, self, "penalty", "must be at least 0", "Try 0.01.")
        for name in ("adapters", "hosts"):
            value = getattr(self, name)
            words = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
            check(words, self, name, "must be a tuple of text", 'Try ("first", "second").')
            several = not value or len(value) > 1
            check(several, self, name, "must name several: one alone is used as it is", "Add another.")
        check(len(set(self.adapters)) == len(self.adapters), self, "adapters", "must differ", "Name each once.")

    def expression(self) -> str:
        return read(self.hosts[0]).expression() if self.hosts else ""

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, dict[str, Tensor]]:
        if self.hosts:
            return self, {}
        if not self.adapters:
            raise BadInput("AdapterFusion: it names no adapters. Give those to fuse: adapters=('first', 'second').")
        if missing := [name for name in self.adapters if name not in adapters]:
            raise BadInput(
                f"AdapterFusion: there is no adapter {', '.join(missing)} on this model; attached are: "
                f"{', '.join(adapters) or 'none'}. Load it first: graft.load(model, folder, name={missing[0]!r})."
            )
        chosen = [adapters[name] for name in self.adapters]
        _fit_together(chosen)
        made: list[str] = []
        tensors: dict[str, Tensor] = {}
        shared = 0
        for i, adapter in enumerate(chosen):
            made.append(spelled(adapter.method.methods()[0].serving()))
            heads = {placed.key for placed in adapter.placed if placed.head}
            parts = {key: part for key, part in adapter.deployed().items() if key not in heads}
            for key, part in parts.items():
                alone = key.startswith("shared.")
                to = f"shared.{shared}" if alone else f"{key}.adapter_{i}"
                shared += alone
                tensors |= {f"{to}.{name}": tensor for name, tensor in part.state_dict().items()}
        return replace(self, hosts=tuple(made)), tensors

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        grown: list[tuple[Site | None, Part]] = []
        at: dict[str, list[Part]] = {site.name: [] for site in sites}
        for host in self.hosts:
            for site, part in read(host).grow(sites):
                if site is None:
                    grown.append((None, part.requires_grad_(False)))
                else:
                    at[site.name].append(part)
        if lacking := [name for name, parts in at.items() if len(parts) != len(self.hosts)]:
            raise Refused(f"AdapterFusion: not every adapter acts at {lacking[0]}. Fuse adapters with the same sites.")
        return [*grown, *((site, Fused(site.outputs, at[site.name])) for site in sites)]

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: int, parts: Sequence[Part]
    ) -> Tensor | None:
        values = [part.V for part in parts if isinstance(part, Fused)]
        if phase != "loss" or not self.penalty:
            return None
        off = [(V - torch.eye(len(V), device=V.device)).square().sum().to(values[0].device) for V in values]
        return self.penalty * torch.stack(off).sum()

    def count(self, sites: Sequence[Site]) -> int:
        return sum(3 * site.outputs**2 + 2 * site.outputs for site in sites)


def _fit_together(adapters: "Sequence[Adapter]") -> None:
    """Refuse adapters of which no attention at one place can choose."""
    places: dict[str, set[str]] = {}
    for adapter in adapters:
        acting = [placed for placed in adapter.placed if placed.site is not None and not placed.head]
        places[adapter.name] = {placed.key for placed in acting}
        other = [p.key for p in acting if not {"after"} <= p.part.verbs() <= {"after", "params"} or p.part.listens]
        if len(adapter.method.methods()) > 1 or adapter.trained or other:
            why = f"at {other[0]} it does something else than to add" if other else "it is a sum of methods"
            raise Refused(
                f"AdapterFusion: {adapter.name!r} ({spelled(adapter.method)}) cannot be fused: {why}. Fuse adapters of "
                "one method that adds to an output, such as pfeiffer, or houlsby(train_layernorm=False)."
            )
    first, *others = places
    for name in others:
        if differ := sorted(places[first] ^ places[name]):
            one = first if differ[0] in places[first] else name
            raise BadInput(
                f"AdapterFusion: {first!r} and {name!r} act at different places: only {one!r} at {differ[0]}, one of "
                f"{len(differ)}. Fuse adapters with the same sites."
            )
