"""`graft plug`: an adapter of a small model, made one of a larger model through a bridge that is fitted to texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from graft import checkpoint
from graft.anatomy import Anatomy, examine
from graft.anatomy.site import Site
from graft.attach import Adapter, attach, detach
from graft.composition import tensors
from graft.errors import BadInput, Refused
from graft.methods.plug_in import PlugIn
from graft.progress import Bar
from graft.spelling import spelled
from graft.transfer.bridge import Fit, Moments, fitted
from graft.transfer.states import Heard

HELD_OUT = 5  # every so many a text is measured on instead of fitted to
SOURCE = "plugged-by-graft"
SMALL, LARGE = "small", "large"
Pair = tuple[Site, Site]  # of the large model, and of the small one
End = tuple[str, str, str]  # of a bridge: the model, the site, and what of it


@dataclass(frozen=True)
class Plugging:
    """What came of it: the adapter on the large model, how far the bridge is off, by which it would be without a fit,
    and on how many tokens that was fitted."""

    adapter: Adapter
    mismatch: float
    unfitted: float
    tokens: int


def plug(
    large: nn.Module,
    small: nn.Module,
    folder: str | Path,
    rows: Sequence[Sequence[int]],
    *,
    fit: Fit = "least_squares",
    name: str | None = None,
    train_bridge: bool = False,
    force: bool = False,
    show: bool = False,
) -> Plugging:
    """Attach the adapter in `folder`, which is of `small`, to `large`. Both are left as they were but for that.

    rows: texts as token ids, the same for both; every fifth is measured on. No gradient is computed, of either model;
    with train_bridge the bridge trains afterwards. While it is fitted, a bridge takes the square of its width in
    memory, in double precision. Raises Refused for adapters that cannot be plugged and models without a site in
    common, BadInput without rows.
    """
    if len(rows) < 2:
        raise BadInput("a bridge is fitted to some texts and measured on others: give at least two.")
    source = checkpoint.load(small, folder, SOURCE, force=force)
    try:
        _refuse_others(source)
        given, pairs = tensors(source), _pairs(source, examine(large))
    finally:
        detach(small, SOURCE)
    method = PlugIn(spelled(source.method.serving()), tuple(map(_spelled, pairs)), train_bridge)
    adapter = attach(large, method, name or "default", head=False)
    try:
        bridges = _Bridges(method, pairs, examine(large), examine(small))
        bridges.hear(large, small, rows, show)
        matrices, mismatch, unfitted = bridges.fitted(fit)
        adapter.begin({**_inner(given, pairs), **matrices})
    except BaseException:
        detach(large, adapter.name)
        raise
    return Plugging(adapter, mismatch, unfitted, bridges.tokens)


def _refuse_others(source: Adapter) -> None:
    """Refuse what is no one method's parts at sites."""
    heads = [placed.key for placed in source.placed if placed.head]
    if source.trained or heads or len(source.method.methods()) > 1 or isinstance(source.method, PlugIn):
        what = (
            "it trains the base's own tensors" if source.trained
            else f"it has a task head of its own ({heads[0]}), which knows the small model's states alone" if heads
            else "it is a sum of methods" if len(source.method.methods()) > 1
            else "it is plugged in itself, and the one that was trained is what to plug"
        )  # fmt: skip
        raise Refused(
            f"{spelled(source.method)} cannot be plugged into another model: {what}. Plug a LoRA, a bottleneck adapter "
            "or a prefix that was trained with a language model's own head."
        )


def _pairs(source: Adapter, large: Anatomy) -> list[Pair]:
    """The sites of the large model, each with that of the small one whose adapter it gets: l ↦ ⌊l·L_s/L_b⌋."""
    sizes = {stack.name: len(stack.layers) for stack in examine(source.model).stacks}
    layers = {stack.name: len(stack.layers) for stack in large.stacks}
    at = {_place(placed.site): placed.site for placed in source.placed if placed.site is not None}
    pairs = []
    for site in large.sites:
        layer = site.layer
        if layer is not None and site.stack in sizes:
            layer = layer * sizes[site.stack] // layers[site.stack]
        if (other := at.get((*_place(site)[:3], layer))) is not None:
            pairs.append((site, other))
    reached = {_place(site)[:3] for site, _ in pairs}
    if lacking := sorted({small.name for small in at.values() if _place(small)[:3] not in reached}):
        raise Refused(
            f"the models have no common sites for {lacking[0]} and {len(lacking) - 1} more: {spelled(source.method)} "
            "acts there, and nowhere in the larger model is such a place. Plug it into a model of the same family."
        )
    return pairs


def _place(site: Site) -> tuple[str, bool, str, int | None]:
    return site.stack, site.cross, site.role, site.layer


def _spelled(pair: Pair) -> str:
    """How `PlugIn` keeps a pair."""
    site, small = pair
    heads = f" {small.heads.query} {small.heads.key} {small.heads.width}" if small.heads else ""
    return f"{site.name} = {small.name} {small.inputs} {small.outputs}{heads}"


def _inner(given: Mapping[str, Tensor], pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """The small adapter's tensors, as the parts in the large model call them."""
    found = {name: tensor for name, tensor in given.items() if name.startswith("shared.")}
    for site, small in pairs:
        start = f"{small.name}."
        found |= {f"{site.name}.inner.{n.removeprefix(start)}": t for n, t in given.items() if n.startswith(start)}
    return found


class _Bridges:
    """Every bridge of an adapter, and what has been seen of what it connects."""

    def __init__(self, method: PlugIn, pairs: Sequence[Pair], large: Anatomy, small: Anatomy) -> None:
        self.ends: dict[str, tuple[End, End]] = {}
        for site, other in pairs:
            for name in method.bridges(site):
                ours, theirs, point = (site.name, other.name, name)
                if name in ("k", "v"):
                    ours, theirs, point = _beside(large, site, name), _beside(small, other, name), "y"
                elif name == "out":
                    point = "y"
                here, there = (LARGE, ours, point), (SMALL, theirs, point)
                into = name not in ("k", "v", "out")
                self.ends[f"{site.name}.bridge_{name}"] = (here, there) if into else (there, here)
        self.seen = {name: Moments() for name in self.ends}
        self.held_out = {name: Moments() for name in self.ends}
        self.tokens = 0

    def hear(self, large: nn.Module, small: nn.Module, rows: Sequence[Sequence[int]], show: bool) -> None:
        """Run both models on the rows, and keep the sums."""
        ears = Heard(large, self._points(LARGE)), Heard(small, self._points(SMALL))
        with ears[0] as ours, ears[1] as theirs, Bar("reading the texts", show) as bar:
            for number, ids in enumerate(rows):
                bar.update(number / len(rows))
                streams = {LARGE: ours.streams(ids), SMALL: theirs.streams(ids)}
                held_out = number % HELD_OUT == 1
                self.tokens += 0 if held_out else len(ids)
                for name, (start, end) in self.ends.items():
                    X, Y = (streams[model][site][point] for model, site, point in (start, end))
                    (self.held_out if held_out else self.seen)[name].add(X, Y)

    def fitted(self, fit: Fit) -> tuple[dict[str, Tensor], float, float]:
        """The matrices by name, their mean mismatch on rows held out, and that of the identity."""
        found, mismatch, unfitted = {}, [], []
        for name in self.ends:
            found[name] = fitted(self.seen[name], fit)
            mismatch.append(self.held_out[name].mismatch(found[name]))
            unfitted.append(self.held_out[name].mismatch(fitted(self.seen[name], "identity")))
        return found, sum(mismatch) / len(mismatch), sum(unfitted) / len(unfitted)

    def _points(self, model: str) -> dict[str, list[str]]:
        points: dict[str, list[str]] = {}
        for which, site, point in {end for ends in self.ends.values() for end in ends}:
            if which == model:
                points.setdefault(site, []).append(point)
        return points


def _beside(anatomy: Anatomy, site: Site, role: str) -> str:
    """The keys' or the values' projection of an attention. Raises Refused where it has none of its own."""
    stack, cross, _, layer = _place(site)
    found = [each.name for each in anatomy.sites if _place(each) == (stack, cross, role, layer)]
    if not found:
        raise Refused(f"{site.name} has no projection {role!r} to fit the prefix's bridge to.")
    return found[0]
