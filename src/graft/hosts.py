"""Methods that run other adapters inside their own parts: which adapters these can be, their tensors, their parts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from graft.anatomy.site import Site
from graft.composition import chosen
from graft.errors import BadInput, Refused
from graft.method import Method, Part, check
from graft.spelling import read, spelled

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter
    from graft.attach.call import Call


def check_names(method: Method, adapters: tuple[str, ...]) -> None:
    """Refuse `adapters` and `hosts` of a method that are not the names of several."""
    for name in ("adapters", "hosts"):
        value = getattr(method, name)
        words = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
        check(words, method, name, "must be a tuple of text", 'Try ("first", "second").')
        several = not value or len(value) > 1
        check(several, method, name, "must name several: one alone is used as it is", "Add another.")
    check(len(set(adapters)) == len(adapters), method, "adapters", "must differ", "Name each once.")


class Hosting(Part):
    """Runs the parts that other methods have at its site: `adapter_0`, `adapter_1`, …"""

    def __init__(self, adapters: Sequence[Part]) -> None:
        super().__init__()
        self.names = [f"adapter_{i}" for i in range(len(adapters))]
        for name, part in zip(self.names, adapters, strict=True):
            self.add_module(name, part)
        self.reads_residual = any(part.reads_residual for part in adapters)

    def added(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> list[Tensor]:
        """What each adds to the output, all given the same."""
        # What an adapter keeps in the cache is kept under its own name.
        calls = {name: replace(call, owner=f"{call.owner}/{name}") for name in self.names}
        return [getattr(self, name).after(x, y, site, own) - y for name, own in calls.items()]

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        for name in self.names:
            part = self.get_submodule(name)
            assert isinstance(part, Part)
            trains = [p.requires_grad for p in part.parameters()]
            part.resize({key.removeprefix(f"{name}."): s for key, s in shapes.items() if key.startswith(f"{name}.")})
            part.requires_grad_(any(trains))


def hosted(
    method: Method, names: tuple[str, ...], adapters: "Mapping[str, Adapter]"
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """The methods of adapters on the model, as text, and their tensors by the keys they have within a host.

    Raises BadInput and Refused where the adapters are not there, or cannot be at one place together.
    """
    found = chosen(method, names, adapters)
    _fit_together(type(method).__name__, found)
    values: dict[str, Tensor] = {}
    shared = 0
    for i, adapter in enumerate(found):
        heads = {placed.key for placed in adapter.placed if placed.head}
        for key, part in adapter.deployed().items():
            if key in heads:
                continue
            alone = key.startswith("shared.")
            place = f"shared.{shared}" if alone else f"{key}.adapter_{i}"
            shared += alone
            values |= {f"{place}.{name}": tensor for name, tensor in part.state_dict().items()}
    return tuple(spelled(each.method.methods()[0].serving()) for each in found), values


def grown(method: Method, hosts: tuple[str, ...], sites: Sequence[Site]) -> tuple[list[Part], dict[str, list[Part]]]:
    """New parts of the hosts: those that they share, and those at each site. Raises Refused where one has none."""
    shared: list[Part] = []
    at: dict[str, list[Part]] = {site.name: [] for site in sites}
    for host in hosts:
        for site, part in read(host).grow(sites):
            (shared if site is None else at[site.name]).append(part)
    if lacking := [name for name, parts in at.items() if len(parts) != len(hosts)]:
        kind = type(method).__name__
        raise Refused(f"{kind}: not every adapter acts at {lacking[0]}. Choose adapters with the same sites.")
    return shared, at


def _fit_together(kind: str, adapters: "Sequence[Adapter]") -> None:
    """Refuse adapters that one part could not run at one place."""
    places: dict[str, set[str]] = {}
    for adapter in adapters:
        acting = [placed for placed in adapter.placed if placed.site is not None and not placed.head]
        places[adapter.name] = {placed.key for placed in acting}
        other = [p.key for p in acting if not {"after"} <= p.part.verbs() <= {"after", "params"} or p.part.listens]
        if len(adapter.method.methods()) > 1 or other:
            why = f"at {other[0]} it does something else than to add" if other else "it is a sum of methods"
            raise Refused(
                f"{kind}: {adapter.name!r} ({spelled(adapter.method)}) cannot be one of them: {why}. Choose adapters "
                "of one method that adds to an output, such as lora, pfeiffer, or houlsby(train_layernorm=False)."
            )
    first, *others = places
    for name in others:
        if differ := sorted(places[first] ^ places[name]):
            one = first if differ[0] in places[first] else name
            raise BadInput(
                f"{kind}: {first!r} and {name!r} act at different places: only {one!r} at {differ[0]}, one of "
                f"{len(differ)}. Choose adapters with the same sites."
            )
