"""Methods that run other adapters inside their own parts: which adapters these can be, their tensors, their parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.composition import chosen
from graft.errors import BadInput, Refused
from graft.method import Method, Part, check
from graft.spelling import read, spelled

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter
    from graft.attach.call import Call


class Acting(NamedTuple):
    """One adapter among those that are to act together: what messages call it, its method, its parts by their sites."""

    name: str
    method: Method
    parts: Mapping[str, Part]


def barred(method: Method) -> str:
    """Why a method cannot run inside the parts of another, whatever its own parts are; empty where nothing says so."""
    if len(method.methods()) > 1:
        return "it is a sum of methods"
    if not method.expression():
        return "it names no sites"
    if method.needs_tasks or getattr(method, "tasks", None):
        return "it tells tasks apart, and graft.Frozen makes an adapter for one of them"
    return "" if method.serving() == method else "it is stored in another form than it trains in, and trains alone"


def check_names(method: Method, adapters: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    """Refuse `adapters` and `hosts` of a method that are not the names of several, and hosts that can never be."""
    for name, value in (("adapters", adapters), ("hosts", hosts)):
        check(len(value) != 1, method, name, "must name several: one alone is used as it is", "Add another.")
    check(len(set(adapters)) == len(adapters), method, "adapters", "must differ", "Name each once.")
    fits = not (adapters and hosts) or len(adapters) == len(hosts)
    check(fits, method, "hosts", f"must be as many as adapters, {len(adapters)}", "Leave them out for adapters there.")
    for host in hosts:
        if why := barred(read(host)):
            raise _refusal(type(method).__name__, Acting(host, read(host), {}), why)
    # Where they have names, the adapters themselves were compared; their expressions may say the same in other words.
    apart = [] if adapters else [host for host in hosts if read(host).expression() != read(hosts[0]).expression()]
    check(not apart, method, "hosts", "must have the same sites, written alike", "Give each of them the same `sites`.")


class Hosting(Part):
    """Runs the parts that other methods have at its site: `adapter_0`, `adapter_1`, …"""

    def __init__(self, adapters: Sequence[Part]) -> None:
        super().__init__()
        self.names = [f"adapter_{i}" for i in range(len(adapters))]
        for name, part in zip(self.names, adapters, strict=True):
            self.add_module(name, part)
        self.reads_residual = any(part.reads_residual for part in adapters)
        self.whole = any(part.whole for part in adapters)

    def added(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> list[Tensor]:
        """What each adds to the output, all given the same."""
        # What an adapter keeps in the cache is kept under its own name.
        calls = {name: replace(call, owner=f"{call.owner}/{name}") for name in self.names}
        return [getattr(self, name).after(x, y, site, own) - y for name, own in calls.items()]

    def keep(self, names: Sequence[str]) -> None:
        """Run these of them from now on, and let go of the others."""
        for name in set(self.names) - set(names):
            delattr(self, name)
        self.names = [name for name in self.names if name in names]

    def decayed(self) -> Iterable[nn.Parameter]:
        own = (parameter for parameter in self.parameters(recurse=False) if parameter.dim() > 1)
        return chain(own, *(self.host(name).decayed() for name in self.names))

    def host(self, name: str) -> Part:
        """The part of one of them."""
        part = self.get_submodule(name)
        assert isinstance(part, Part)
        return part

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        for name in self.names:
            part = self.host(name)
            trains = {key: tensor.requires_grad for key, tensor in part.named_parameters()}
            part.resize({key.removeprefix(f"{name}."): s for key, s in shapes.items() if key.startswith(f"{name}.")})
            for key, tensor in part.named_parameters():  # some are new
                tensor.requires_grad_(trains[key])


def hosted(
    method: Method, names: tuple[str, ...], adapters: "Mapping[str, Adapter]", changes: bool = False
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """The methods of adapters on the model, as text, and their tensors by the keys they have within a host.

    Raises BadInput and Refused where the adapters are not there, or cannot be at one place together; `changes`: to
    change parameters will do where they have no `after`.
    """
    found = chosen(method, names, adapters)
    heads = [{placed.key for placed in each.placed if placed.head} for each in found]
    served = [
        {k: part for k, part in each.deployed().items() if k not in own} for each, own in zip(found, heads, strict=True)
    ]
    acting = [
        Acting(each.name, each.method, {p.key: p.part for p in each.placed if p.site is not None and p.key in own})
        for each, own in zip(found, served, strict=True)
    ]
    _fit_together(method, acting, changes)
    values: dict[str, Tensor] = {}
    shared = 0
    for i, own in enumerate(served):
        for key, part in own.items():
            alone = key.startswith("shared.")
            place = f"shared.{shared}" if alone else f"{key}.adapter_{i}"
            shared += alone
            values |= {f"{place}.{name}": tensor for name, tensor in part.state_dict().items()}
    return tuple(spelled(each.method.methods()[0].serving()) for each in found), values


def grown(
    method: Method, hosts: tuple[str, ...], sites: Sequence[Site], changes: bool = False
) -> tuple[list[Part], list[tuple[Site, list[Part]]]]:
    """New parts of the hosts: those that they share, and those at each site where they act.

    Raises BadInput and Refused as `hosted` does.
    """
    shared: list[Part] = []
    acting = []
    for host in hosts:
        made = read(host).grow(sites)
        shared += [part for site, part in made if site is None]
        acting.append(Acting(host, read(host), {site.name: part for site, part in made if site is not None}))
    _fit_together(method, acting, changes)
    return shared, [(s, [each.parts[s.name] for each in acting]) for s in sites if s.name in acting[0].parts]


def _fit_together(method: Method, adapters: Sequence[Acting], changes: bool) -> None:
    """Refuse adapters that one part could not run at one place."""
    kind, wanted = type(method).__name__, "to add or to change parameters" if changes else "to add"
    for each in adapters:
        if why := barred(each.method.serving()):
            raise _refusal(kind, each, why)
        if odd := [key for key, part in each.parts.items() if not (_adds(part) or (changes and _changes(part)))]:
            raise _refusal(kind, each, f"at {odd[0]} it does something else than {wanted}")
    first, *others = adapters
    for other in others:
        if differ := sorted(first.parts.keys() ^ other.parts.keys()):
            one = first if differ[0] in first.parts else other
            raise BadInput(
                f"{kind}: {first.name!r} and {other.name!r} act at different places: only {one.name!r} at "
                f"{differ[0]}, one of {len(differ)}. Choose adapters with the same sites."
            )
    for key in first.parts:
        parts = [each.parts[key] for each in adapters]
        if not all(map(_adds, parts)) and not all(map(_changes, parts)):
            one = next(each for each in adapters if not _changes(each.parts[key]))
            raise _refusal(kind, one, f"at {key} it adds to the output, and others there only change parameters")


def _adds(part: Part) -> bool:
    """Whether all that a part does is to add to what leaves its site."""
    return {"after"} <= part.verbs() <= {"after", "params"} and not part.listens


def _changes(part: Part) -> bool:
    """Whether all that a part does can be had by changing parameters."""
    return "params" in part.verbs()


def _refusal(kind: str, adapter: Acting, why: str) -> Refused:
    """`adapter` cannot be one of several."""
    spelling = spelled(adapter.method)
    said = "" if adapter.name == spelling else f" ({spelling})"
    return Refused(
        f"{kind}: {adapter.name!r}{said} cannot be one of them: {why}. Choose adapters of one method that adds to an "
        "output, such as lora, pfeiffer, or houlsby(train_layernorm=False)."
    )
