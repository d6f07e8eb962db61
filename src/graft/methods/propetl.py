"""ProPETL (Zeng, Zhang, Lu 2023, arXiv 2305.17682): one module for all layers, of which each layer keeps its own part.

    W_l = W ⊙ M_l,   M_l = 1 at the ρ·|W| entries of largest |S_l|,   ∂M_l / ∂|S_l| := 1

Shared are `form="adapter"`, Pfeiffer's bottleneck; "lora", A and B of q, and those of v; "prefix", keys and values that
a small network computes, masked behind it. Biases are shared by all layers as they are. Sites of one role and shape
have one module, in both stacks. Masks have a learning rate of their own, and no decay, since the order of |S_l| is all
that counts. Stored are the shared module in full precision (a prefix's without its network) and one bit for each entry
of a mask; of this `packed` form the shared module alone would train.

With `tasks` each task has a mask too, for all layers, and what a layer keeps of a task depends on both:

    M = 1 − (1 − M_l)(1 − M_τ)  (join="or"),   M_l M_τ  ("and"),   M_l + M_τ  ("sum")

Rows say which task they are of: a column `task`, or `graft.use(model, name, tasks=[...])`. For one task it freezes to a
ProPETL without tasks, `graft.Frozen("default", task="qa")`, unless the masks are summed, which are no bits.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import ACTIVATIONS, Activation, Method, Part, check, kaiming, positive, reduced
from graft.methods.lora import LowRank
from graft.methods.pfeiffer import AfterNorm
from graft.methods.prefix_tuning import Network, Slots
from graft.sparse import packed, unpacked

if TYPE_CHECKING:
    from graft.attach.call import Call

SITES = {"adapter": "ffn", "prefix": "attention", "lora": "q v"}
DENSITY = {"adapter": 0.5, "prefix": 0.1, "lora": 0.1}
Join = Literal["or", "and", "sum"]
MASK_LR = {"adapter": 3e-3, "prefix": 1e-4, "lora": 3e-2}


class Mask(Part):
    """Which entries of a shared tensor one layer keeps: those of the largest scores, which train."""

    def __init__(self, shape: Sequence[int], density: float) -> None:
        super().__init__()
        self.scores = kaiming(*shape)
        self.entries = max(1, round(density * self.scores.numel()))

    def kept(self) -> Tensor:
        """Ones and zeros."""
        at = self.scores.detach().abs().flatten().topk(self.entries).indices
        return torch.zeros(self.scores.numel(), device=at.device).scatter(0, at, 1.0).view(self.scores.shape)

    def value(self) -> Tensor:
        """The same, with a gradient that goes to the size of every score."""
        size = self.scores.abs()
        return self.kept() + (size - size.detach())

    def stored(self) -> "Bits":
        """As bits."""
        return Bits(self.kept())


class Bits(Part):
    """The same, eight entries to a byte."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.shape = kept.shape
        self.bits: Tensor
        self.register_buffer("bits", packed(kept.bool()))

    def value(self) -> Tensor:
        """Ones and zeros."""
        return unpacked(self.bits, self.shape).float()

    def stored(self) -> "Bits":
        """Itself."""
        return self


class OfTasks(Part):
    """The masks of tasks over one shared module, a mask for each tensor of it, and how a layer's are joined to them."""

    def __init__(self, known: tuple[str, ...], join: Join, masks: Iterable[Sequence[Mask | Bits]]) -> None:
        super().__init__()
        self.known, self.join = known, join
        self.masks = nn.ModuleList(nn.ModuleList(each) for each in masks)

    def joined(self, mask: Tensor, task: int, number: int) -> Tensor:
        """What a layer with this mask keeps of its tensor of that number for a task."""
        other: Tensor = self.masks[task][number].value()  # type: ignore[index]
        return {"or": 1 - (1 - mask) * (1 - other), "and": mask * other, "sum": mask + other}[self.join]

    def stored(self) -> "OfTasks":
        """With its masks as bits."""
        own = [[mask.stored() for mask in each.children()] for each in self.masks.children()]  # type: ignore[operator]
        return OfTasks(self.known, self.join, own)


class Layer(Part):
    """One layer's share of what all have: a mask for each tensor, joined to the task's where there are several."""

    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, shared: Part, masks: Iterable[Mask | Bits], of: OfTasks | None = None) -> None:
        super().__init__()
        self.borrow(shared)
        if of is not None:
            self.borrow(of)
        self.tasks = of.known if of is not None else ()
        for name, mask in zip(self.names, masks, strict=True):
            self.add_module(name, mask)

    def stored(self) -> "Layer":
        """With its masks as bits."""
        return type(self)(self.lent[0], [getattr(self, name).stored() for name in self.names], *self.lent[1:])

    def kept(self, name: str, task: int) -> Tensor:
        """What it keeps of a tensor, for a task: ones and zeros, with gradients where it trains."""
        mask: Tensor = getattr(self, name).value()
        return self.lent[1].joined(mask, task, self.names.index(name)) if self.tasks else mask

    def on(self, shared: Tensor, name: str, task: int, dtype: torch.dtype) -> Tensor:
        """The shared tensor with the other entries at zero."""
        return (shared * self.kept(name, task)).to(dtype)


class AdapterLayer(Layer):
    """Pfeiffer's adapter with some of its weights."""

    names = ("down", "up")
    reads_residual = True
    down: Mask | Bits
    up: Mask | Bits

    def reads(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return call.normed(site, y)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        z = self.reads(x, y, site, call)
        for task, rows in call.by_task(self.tasks, len(y), y.device):
            y = _added(y, rows, self._adapted(z if rows is None else z[rows], task))
        return y

    def _adapted(self, z: Tensor, task: int) -> Tensor:
        of: AfterNorm = self.lent[0]
        down, up = self.on(of.down, "down", task, z.dtype), self.on(of.up, "up", task, z.dtype)
        inner = ACTIVATIONS[of.activation](F.linear(z, down, of.down_bias.to(z.dtype)))
        return F.linear(inner, up, of.up_bias.to(z.dtype))


class LowRankLayer(Layer):
    """LoRA with some of its weights."""

    names = ("A", "B")
    A: Mask | Bits
    B: Mask | Bits

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        of: LowRank = self.lent[0]
        for task, rows in call.by_task(self.tasks, len(y), y.device):
            A, B = self.on(of.A, "A", task, x.dtype), self.on(of.B, "B", task, x.dtype)
            y = _added(y, rows, of.scale * F.linear(F.linear(x if rows is None else x[rows], A), B))
        return y

    def params(self, site: Site) -> dict[str, Tensor]:
        of: LowRank = self.lent[0]
        A, B = self.on(of.A, "A", 0, torch.float32), self.on(of.B, "B", 0, torch.float32)
        return {site.parameter: site.weight.to(A.dtype) + of.scale * (B @ A)}

    def bound(self, site: Site) -> int:
        return self.lent[0].bound(site)


class LowRankOfTasks(LowRankLayer):
    """The same for several tasks, of which rows have one each: there is no one matrix to merge."""

    params = Part.params
    bound = Part.bound


class PrefixLayer(Layer):
    """A prefix with some of its keys' and values' numbers."""

    names = ("P",)
    P: Mask | Bits

    def __init__(self, shared: Network | Slots, masks: Iterable[Mask | Bits], of: OfTasks | None = None) -> None:
        super().__init__(shared, masks, of)
        self.length = len(shared.layer(0)[0])

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        both: Tensor = self.lent[0].layer(0)
        rows = len(call.tasks) if self.tasks and isinstance(call.tasks, tuple) else 1
        found = call.by_task(self.tasks, rows, both.device)
        kept = [self.on(both, "P", task, torch.float32) for task, _ in found]
        if found[0][1] is None:
            return kept[0][0], kept[0][1], None
        each = both.new_zeros(rows, *both.shape)
        for own, (_, at) in zip(kept, found, strict=True):
            each = each.index_copy(0, at, own.expand(len(at), *own.shape))  # type: ignore[arg-type]
        return each[:, 0], each[:, 1], None


def _added(y: Tensor, rows: Tensor | None, change: Tensor) -> Tensor:
    return y + change if rows is None else y.index_add(0, rows, change.to(y.dtype))


@dataclass(frozen=True)
class ProPETL(Method):
    """One adapter, LoRA or prefix for all layers, of which each layer keeps what its trained mask says."""

    form: Annotated[Literal["adapter", "prefix", "lora"], "what the layers share"] = "adapter"
    density: Annotated[float | None, "ρ, the share that a layer keeps; none: 0.5 of an adapter, 0.1 of others"] = None
    mask_lr: Annotated[float | None, "learning rate of the masks; none: 3e-3, prefix 1e-4, lora 3e-2"] = None
    reduction: Annotated[int, "adapter: the bottleneck is this many times narrower than the model"] = 12
    activation: Annotated[Activation, "adapter: non-linearity inside"] = "relu"
    tokens: Annotated[int, "prefix: number of virtual keys"] = 64
    hidden: Annotated[int, "prefix: width of the network that computes them"] = 512
    rank: Annotated[int, "lora: width of the update"] = 32
    alpha: Annotated[float, "lora: the update is scaled by alpha/rank"] = 48.0
    tasks: Annotated[tuple[str, ...], "names of tasks that have masks of their own; none: there is one task"] = ()
    join: Annotated[Join, "how a task's mask is joined to a layer's"] = "or"
    packed: Annotated[bool, "attach the masks as bits, as they are stored"] = False

    family: ClassVar[str] = "hybrid"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "reduction", "tokens", "hidden", "rank")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 48.")
        for name, most in (("density", 1), ("mask_lr", float("inf"))):
            value = getattr(self, name)
            fits = value is None or (type(value) in (int, float) and 0 < value < most)
            check(fits, self, name, f"must be above 0 and below {most}, or None", "Leave it out for the paper's own.")
        check(
            len(set(self.tasks)) == len(self.tasks) != 1, self, "tasks", "must be several, or none", "Name each once."
        )
        if self.form == "lora":
            object.__setattr__(self, "start", "exact")

    def expression(self) -> str:
        return SITES[self.form]

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        grown: list[tuple[Site | None, Part]] = []
        lora = LowRankOfTasks if self.tasks else LowRankLayer
        kind: type[Layer] = {"adapter": AdapterLayer, "prefix": PrefixLayer, "lora": lora}[self.form]
        for group in _alike(sites):
            shared, of = self._shared(group[0]), None
            grown.append((None, shared))
            if self.tasks:
                of = OfTasks(self.tasks, self.join, [self._masks(group[0]) for _ in self.tasks])
                of = of.stored() if self.packed else of
                grown.append((None, of))
            for site in group:
                layer = kind(shared, self._masks(site), of)
                grown.append((site, layer.stored() if self.packed else layer))
        return grown

    def _masks(self, site: Site) -> list[Mask]:
        density = DENSITY[self.form] if self.density is None else self.density
        return [Mask(shape, density) for shape in self._masked(site)]

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: p.stored() if isinstance(p, Layer | OfTasks) else _flat(p) for key, p in parts.items()}

    def serving(self) -> Method:
        return replace(self, packed=True)

    def frozen(
        self, parts: Mapping[str, Part], task: str | None, examples: Sequence[Sequence[int]]
    ) -> tuple[Method, Mapping[str, Tensor]]:
        if not self.tasks:
            return super().frozen(parts, task, examples)
        if self.join == "sum" or task not in self.tasks:
            why = "summed masks are no bits" if self.join == "sum" else "it reads no examples, and knows tasks"
            raise BadInput(f"ProPETL cannot freeze: {why}. Name a task of an adapter with join='or' or 'and'.")
        number, found = self.tasks.index(task), dict[str, Tensor]()
        shared = [part for part in parts.values() if not isinstance(part, Layer | OfTasks)]
        for index, part in enumerate(shared):  # without the masks of tasks between them, these count on
            found |= {f"shared.{index}.{name}": tensor for name, tensor in _flat(part).state_dict().items()}
        for key, part in parts.items():
            names = part.names if isinstance(part, Layer) else ()
            found |= {f"{key}.{name}.bits": packed(part.kept(name, number).bool()) for name in names}  # type: ignore[operator]
        return replace(self, tasks=(), packed=True), found

    def groups(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        masks = [p for part in parts if isinstance(part, Layer | OfTasks) for p in part.parameters()]
        shared = [p for part in parts if not isinstance(part, Layer | OfTasks) for p in part.parameters()]
        rate = MASK_LR[self.form] if self.mask_lr is None else self.mask_lr
        return [{"params": shared}, {"params": masks, "lr": rate, "weight_decay": 0.0}]

    def sizes(self) -> tuple[str, ...]:
        return {"adapter": ("reduction",), "prefix": ("tokens", "hidden"), "lora": ("rank",)}[self.form]

    def count(self, sites: Sequence[Site]) -> int:
        def entries(site: Site) -> int:
            return sum(torch.Size(shape).numel() for shape in self._masked(site))

        shared = sum(entries(group[0]) + self._unmasked(group[0]) for group in _alike(sites))
        of_tasks = len(self.tasks) * sum(entries(group[0]) for group in _alike(sites))
        return shared if self.packed else shared + of_tasks + sum(entries(site) for site in sites)

    def drawn(self, sites: Sequence[Site]) -> int:
        return replace(self, packed=False).count(sites)

    def _shared(self, site: Site) -> Part:
        if self.form == "adapter":
            return AfterNorm(site.outputs, reduced(self, site.outputs), self.activation, "bert")
        if self.form == "lora":
            return LowRank(site, self.rank, self.alpha / self.rank, dropout=0.0)
        assert site.heads is not None
        network = Network(self.tokens, site.inputs, self.hidden, 1, (site.heads.key, site.heads.width))
        return _flat(network) if self.packed else network

    def _masked(self, site: Site) -> list[tuple[int, ...]]:
        """The shapes of the tensors that have masks."""
        if self.form == "adapter":
            r = reduced(self, site.outputs)
            return [(r, site.outputs), (site.outputs, r)]
        if self.form == "lora":
            return [(*site.batch, self.rank, site.inputs), (*site.batch, site.outputs, self.rank)]
        assert site.heads is not None
        return [(2, self.tokens, site.heads.key, site.heads.width)]

    def _unmasked(self, site: Site) -> int:
        """How many numbers more a shared module has than its masks: biases, or a network instead of what it gives."""
        if self.form == "adapter":
            return reduced(self, site.outputs) + site.outputs
        if self.form == "lora" or self.packed:
            return 0
        assert site.heads is not None
        given = 2 * site.heads.key * site.heads.width
        network = self.tokens * site.inputs + (site.inputs + 1) * self.hidden + (self.hidden + 1) * given
        return network - self.tokens * given


def _alike(sites: Sequence[Site]) -> list[list[Site]]:
    """Sites that share one module."""
    groups: dict[tuple, list[Site]] = {}
    for site in sites:
        groups.setdefault((site.role, site.inputs, site.outputs, site.heads), []).append(site)
    return list(groups.values())


def _flat(shared: Part) -> Part:
    """A shared module as it is stored: what a network computes, instead of it."""
    if not isinstance(shared, Network):
        return shared
    with torch.no_grad():
        given = shared.layer(0)
        slots = Slots(given.shape[1], 1, shared.heads)
        slots.P = nn.Parameter(given[None].clone())
    return slots
