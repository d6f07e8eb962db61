"""PEFT plug-in (Jin, Zhang, Zong 2023, doi 10.18653/v1/2023.emnlp-main.22): an adapter of a small model in a large one.

    h ← h + Δ(h),   Δ(h) = (small(h B_in) − h B_in) B_out,   B_in ∈ R^{D×d},  B_out ∈ R^{d×D}
    P_k ← P_k B_k,   P_v ← P_v B_v                      of prefixes, B_k, B_v ∈ R^{d×D}

Layer l of the large model's L_b has what layer ⌊l·L_s/L_b⌋ of the small one's L_s has. The paper's bridge is not
published in detail; here it is one matrix for each thing that the small adapter reads at a site (what enters it, what
leaves it, the residual stream, their normed sum) and one for what it writes. `graft plug` fits them to both models'
hidden states, those of prefixes to what leaves the projections of keys and values (before rotation and norms, which a
prefix is behind), without a gradient of the large one, and stores all of it: the small model is not needed afterwards.
Nothing trains then, unless `train_bridge` says so.

By hand, `host`, no `plugs` and `train_bridge` make a new adapter of the model's own sizes, with the identity as bridge.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.site import LINEAR_ROLES, Heads, Site
from graft.errors import BadInput, Refused
from graft.hosts import barred
from graft.method import Method, Part, check
from graft.spelling import read

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter
    from graft.attach.call import Call

PLUG = re.compile(r"(\S+) = (\S+) (\d+) (\d+)(?: (\d+) (\d+) (\d+))?")
WIDER = 4  # times as wide as the large model's may one layer of the small one's be
ROOM = 64  # times the entries of a layer may an adapter have; more stands in no honest file
LACKING = (AttributeError, RuntimeError, TypeError, StopIteration)  # how code fails that is not given what it asks for
REMEDY = "Plug a LoRA, a bottleneck adapter or a prefix."
POINTS = ("x", "y", "residual", "normed")  # what an adapter may read: what enters, what leaves, the stream, their sum


class Across:
    """A call as the small adapter sees it: the residual stream and its normed sum in the small model's width."""

    def __init__(self, call: "Call | None", streams: Mapping[str, Tensor]) -> None:
        self._call, self._streams = call, streams

    def residual(self, site: Site) -> Tensor:
        return self._streams["residual"]

    def normed(self, site: Site, y: Tensor) -> Tensor:
        return self._streams["normed"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class Bridged(Part):
    """An adapter of a small model at one site of a large one, and the bridge between them."""

    inner: Part

    def __init__(self, small: Site, inner: Part, bridges: Mapping[str, tuple[int, int]], train: bool) -> None:
        super().__init__()
        self.small, self.inner = replace(small, module=None), inner.requires_grad_(False)
        self.points = tuple(point for point in POINTS if point in bridges)
        for name, shape in bridges.items():
            self.register_parameter(f"bridge_{name}", nn.Parameter(torch.eye(*shape), requires_grad=train))
        self.reads_residual, self.length = inner.reads_residual, inner.length

    def across(self, stream: Tensor, name: str) -> Tensor:
        """A stream of one model in the width of the other."""
        return stream @ getattr(self, f"bridge_{name}")


class Plugged(Bridged):
    """What is added to what leaves a site."""

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        wide = {"x": lambda: x, "y": lambda: y, "residual": lambda: call.residual(site),
                "normed": lambda: call.normed(site, y)}  # fmt: skip
        given = {point: self.across(wide[point](), point) for point in self.points}
        for point, width in (("x", self.small.inputs), ("y", self.small.outputs)):
            if point not in given:  # the small adapter is handed it and does not look
                given[point] = y.new_zeros(*y.shape[:-1], width)
        return y + self.across(_added(self.inner, self.small, call, given), "out")


class Mergeable(Plugged):
    """The same of an adapter that is an update of a matrix, whatever the matrix: W + B_outᵀ ΔW B_inᵀ."""

    def params(self, site: Site) -> dict[str, Tensor]:
        enters: Tensor = self.bridge_x  # type: ignore[assignment]
        out: Tensor = self.bridge_out  # type: ignore[assignment]
        small = replace(self.small, module=SimpleNamespace(weight=out.new_zeros(self.small.outputs, self.small.inputs)))
        update = self.inner.params(small)
        found = {site.parameter: site.weight.to(out.dtype) + out.T @ update.pop("weight") @ enters.T}
        for name, value in update.items():
            found[name] = self.across(value, "out") + (0 if site.bias is None else site.bias.to(out.dtype))
        return found

    def bound(self, site: Site) -> int:
        return min(self.inner.bound(self.small), super().bound(site))


class PluggedKeys(Bridged):
    """Keys and values of the small attention, each as wide as the large one's."""

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        assert site.heads is not None
        heads = (site.heads.key, site.heads.width)
        keys, values, _ = self.inner.keys_values(self.small, call)
        wide = self.across(keys.flatten(1), "k"), self.across(values.flatten(1), "v")
        return wide[0].unflatten(-1, heads), wide[1].unflatten(-1, heads), None


def _added(part: Any, site: Site, call: "Call | None", given: Mapping[str, Tensor]) -> Tensor:
    """What the small adapter adds, all it reads being given."""
    return part.after(given["x"], given["y"], site, Across(call, given)) - given["y"]


@dataclass(frozen=True)
class PlugIn(Method):
    """An adapter that was trained on a smaller model of the family, through a bridge. Made by `graft plug`."""

    host: Annotated[str, "how the adapter was made, as is stored: lora(rank=4); given, a new one is made so"] = ""
    plugs: Annotated[tuple[str, ...], "site = site of the small model, its inputs and outputs, its heads"] = ()
    train_bridge: Annotated[bool, "train the bridge, which takes gradients of the large model"] = False

    family: ClassVar[str] = "hybrid"
    learning_rate: ClassVar[float] = 1e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"
    made_by: ClassVar[str] = "graft plug runs/small/adapter --model LARGE --data texts.txt --output plugged"

    def __post_init__(self) -> None:
        super().__post_init__()
        words = all(map(PLUG.fullmatch, self.plugs))
        check(words, self, "plugs", "must be like 'decoder.5.q = decoder.2.q 64 64'", "`graft plug` writes them.")
        if self.host and (why := barred(read(self.host))):
            raise Refused(f"PlugIn: {self.host} cannot be plugged: {why}. {REMEDY}")

    def expression(self) -> str:
        own = read(self.host).expression() if self.host else ""
        return " ".join(plug.split(" = ")[0] for plug in self.plugs) or own

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, Mapping[str, Tensor]]:
        if not self.host or not (self.plugs or self.train_bridge):  # nothing would ever train
            raise BadInput(
                "PlugIn: there is no adapter in it. `graft plug ADAPTER --model LARGE --data TEXTS --output FOLDER` "
                "makes one of an adapter that was trained on a smaller model."
            )
        return self, {}

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        bridges = {site.name: self.bridges(site) for site in sites}  # which refuses what it must before it is made
        grown: list[tuple[Site | None, Part]] = []
        for small, part in read(self.host).grow(list(self.smalls(sites).values())):
            if small is None:
                grown.append((None, part.requires_grad_(False)))
                continue
            site = next(each for each in sites if each.name == small.name)
            own = bridges[site.name]
            kind = PluggedKeys if "k" in own else Plugged
            if "params" in part.verbs() and site.role in LINEAR_ROLES and set(own) == {"x", "out"}:
                kind = Mergeable
            grown.append((site, kind(small, part, own, self.train_bridge)))
        return grown

    def count(self, sites: Sequence[Site]) -> int:
        return sum(map(self._size, sites)) if self.train_bridge else 0

    def smalls(self, sites: Sequence[Site]) -> dict[str, Site]:
        """The small model's sites, by the names of the large model's and called like these."""
        found, sizes = {}, _sizes(self.plugs)
        for site in sites:
            inputs, outputs, heads = sizes.get(site.name, (site.inputs, site.outputs, site.heads))
            if max(inputs, outputs) > WIDER * max(site.inputs, site.outputs):
                raise BadInput(
                    f"PlugIn: {site.name} is {site.outputs} by {site.inputs}, and the adapter's site is {outputs} by "
                    f"{inputs}, which is of no smaller model. Make it anew with `graft plug`."
                )
            found[site.name] = _small(site.name, site.role, site.layer, inputs, outputs, heads, site)
        return found

    def bridges(self, site: Site) -> dict[str, tuple[int, int]]:
        """The matrices of one site, (rows, columns). Raises Refused where the adapter cannot be plugged there."""
        small = self.smalls([site])[site.name]
        if site.role not in (*LINEAR_ROLES, "attention", "ffn") or site.batch:
            raise Refused(
                f"PlugIn: {self.host} acts at {site.name}, which has no bridge: only linear maps, attention and "
                "feed-forward networks have. Choose other sites, and for houlsby train_layernorm=False."
            )
        points = _points(self.host, site.role, small.inputs, small.outputs, small.heads)
        if points == ("keys",):
            assert small.heads is not None and site.heads is not None
            shape = (small.heads.key * small.heads.width, site.heads.key * site.heads.width)
            return {"k": shape, "v": shape}
        wide = {
            point: (site.inputs, small.inputs) if point == "x" else (site.outputs, small.outputs) for point in points
        }
        return {**wide, "out": (small.outputs, site.outputs)}

    def _size(self, site: Site) -> int:
        return sum(rows * columns for rows, columns in self.bridges(site).values())


def _small(
    name: str, role: str, layer: int | None, inputs: int, outputs: int, heads: Heads | None, like: Site | None = None
) -> Site:
    """A site of the small model, of which there are sizes and no numbers."""
    module = nn.Linear(max(inputs, 1), max(outputs, 1), bias=False, device="meta")
    stack, cross = (like.stack, like.cross) if like else ("decoder", False)
    return Site(name, role, name, stack, layer, cross, inputs=inputs, outputs=outputs, heads=heads, module=module)


@lru_cache(maxsize=8)
def _sizes(plugs: tuple[str, ...]) -> dict[str, tuple[int, int, Heads | None]]:
    """Inputs, outputs and heads of the small model's sites, by the names of the large model's."""
    found = {}
    for match in filter(None, map(PLUG.fullmatch, plugs)):
        inputs, outputs, *heads = (int(number) for number in match.groups()[2:] if number is not None)
        found[match[1]] = (inputs, outputs, Heads(*heads) if heads else None)
    return found


@lru_cache(maxsize=256)
def _points(host: str, role: str, inputs: int, outputs: int, heads: Heads | None) -> tuple[str, ...]:
    """What an adapter reads at such a site, of `POINTS`, found by trying one; ("keys",) for keys and values.

    Raises Refused for one that does something else than add, or needs more than it is given.
    """
    site = _small("decoder.0.it", role, 0, inputs, outputs, heads)
    refusal = f"PlugIn: {host} cannot be plugged"
    if (asked := read(host).count([site])) > ROOM * max(inputs, 1) * max(outputs, 1):
        raise BadInput(f"{refusal}: at a {role} of {inputs} by {outputs} it would have {asked:,} numbers.")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        try:
            grown = read(host).grow([site])
            part = next((part for at, part in grown if at is not None), None)
            verbs = part.verbs() if part is not None else frozenset()
            keys = verbs == {"keys_values"}
            adds = keys or {"after"} <= verbs <= {"after", "params"}
            if part is None or not adds or part.listens or part.reads_input:
                raise Refused(f"{refusal}: at a {role} it does something else than to add to what leaves it. {REMEDY}")
            for tensor in (tensor for _, each in grown for tensor in each.parameters()):
                if tensor.is_floating_point() and not tensor.is_meta:
                    tensor.normal_()
            part.eval()
            return _keys(part, site) if keys else _read(part, replace(site, module=None))
        except LACKING as error:
            raise Refused(
                f"{refusal}: at a {role} it needs more than what passes there, such as the small model's own weights "
                f"or a gate of its heads. {REMEDY}"
            ) from error


def _keys(part: Part, site: Site) -> tuple[str, ...]:
    _, _, gate = part.keys_values(site, None)  # type: ignore[arg-type]
    if gate is not None:
        raise TypeError("a gate is of the small model's heads")
    return ("keys",)


def _read(part: Part, site: Site) -> tuple[str, ...]:
    widths = {point: site.inputs if point == "x" else site.outputs for point in POINTS}
    given = {point: torch.randn(2, 32, width) for point, width in widths.items()}
    try:
        plain = _added(part, site, None, given)
    except Refused as error:
        raise TypeError("what is not there are the small model's weights") from error
    scale = 1e-3 * float(plain.abs().max())
    other = {p: _added(part, site, None, {**given, p: torch.randn_like(each)}) for p, each in given.items()}
    return tuple(point for point in POINTS if float((other[point] - plain).abs().max()) > scale)
