"""HyperFormer++ (Mahabadi et al. 2021, arXiv 2106.04489): one network writes the adapters of all tasks.

    I = LN(MLP([z_τ; e_l; e_p])),   vec(U) = I W_U + b_U, and likewise D, their biases, γ and β
    A(x) = x + LN_{γ,β}(σ(x D + b_D) U + b_U)

Task τ has an embedding z_τ, layer l and place p (after attention, after the FFN) have theirs, and a network for each
stack makes of them the adapter that stands there: tasks share what they can. Encoder and decoder share the z_τ.
MLP is 3t → 128 → t with a ReLU. All that makes weights starts N(0, 0.01²), biases 0, embeddings N(0, 1): γ is small but
not 0, so it does not start as the base. All layer norms of the base train too, through copies; cross-attention has no
adapter, as in the authors' code.

Rows say which task they are of: a column `task`, or `graft.use(model, name, tasks=[...])`. For one task it freezes to
an ordinary Houlsby adapter: `graft.attach(model, graft.Frozen("default", task="qa"), "qa")`, whose layer norm after the
bottleneck Houlsby's own does not have (`after_norm`), and to LN-tuning beside it where the norms trained. Departures:
norms that trained are those of all tasks together, as published; without tasks' names there is one task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import ACTIVATIONS, Activation, Method, Part, StandIn, check, named, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

STD = 0.01  # of all that makes weights
EPS = 1e-6  # of the norm of I

Place = tuple[str, bool]


class Tasks(Part):
    """z_τ of every task."""

    rate = 0.1

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.z = normal(tasks, width, std=1.0)


class Hypernetwork(Part):
    """What writes the adapters of one stack."""

    rate = 0.1

    def __init__(
        self, tasks: Tasks, layers: int, places: int, hidden: int, shapes: Mapping[str, Sequence[int]]
    ) -> None:
        super().__init__()
        self.borrow(tasks)
        t, self.shapes = tasks.z.shape[1], {name: torch.Size(shape) for name, shape in shapes.items()}
        self.layers, self.places = normal(layers, t, std=1.0), normal(places, t, std=1.0)
        self.W_1, self.b_1 = normal(hidden, 3 * t, std=STD), zeros(hidden)
        self.W_2, self.b_2 = normal(t, hidden, std=STD), zeros(t)
        self.gain, self.shift = nn.Parameter(torch.ones(t)), zeros(t)
        for name, shape in self.shapes.items():
            self.register_parameter(f"W_{name}", normal(shape.numel(), t, std=STD))
            self.register_parameter(f"b_{name}", zeros(shape.numel()))

    def written(self, task: int, layer: int, place: int) -> dict[str, Tensor]:
        """The adapter of a task at a place of a layer: its tensors by name."""
        e = torch.cat((self.lent[0].z[task], self.layers[layer], self.places[place]))
        inner = F.linear(F.relu(F.linear(e, self.W_1, self.b_1)), self.W_2, self.b_2)
        code = F.layer_norm(inner, inner.shape, self.gain, self.shift, EPS)
        return {
            name: F.linear(code, getattr(self, f"W_{name}"), getattr(self, f"b_{name}")).view(shape)
            for name, shape in self.shapes.items()
        }


class Written(Part):
    """The adapter at one place, of whichever tasks the rows are."""

    def __init__(
        self, network: Hypernetwork, at: tuple[int, int], tasks: tuple[str, ...], activation: Activation
    ) -> None:
        super().__init__()
        self.borrow(network)
        self.at, self.tasks, self.activation = at, tasks, activation

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        for task, rows in call.by_task(self.tasks, len(y), y.device):
            own = {name: tensor.to(y.dtype) for name, tensor in self.tensors(task).items()}
            y = self._adapted(y, own) if rows is None else y.index_copy(0, rows, self._adapted(y[rows], own))
        return y

    def tensors(self, task: int) -> dict[str, Tensor]:
        """The tensors of the adapter of one task."""
        return self.lent[0].written(task, *self.at)

    def _adapted(self, y: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        inner = ACTIVATIONS[self.activation](F.linear(y, own["down"], own["down_bias"]))
        added = F.linear(inner, own["up"], own["up_bias"])
        return y + F.layer_norm(added, added.shape[-1:], own["gain"], own["shift"]).to(y.dtype)


@dataclass(frozen=True)
class HyperFormer(Method):
    """Adapters of several tasks at once, written by one small network. Freezes to an ordinary adapter for one task."""

    tasks: Annotated[tuple[str, ...], "names of the tasks; in training those of the rows, where none are given"] = ()
    bottleneck: Annotated[int, "width of the bottleneck of the adapters"] = 24
    width: Annotated[int, "t, the width of embeddings of tasks, layers and places"] = 64
    hidden: Annotated[int, "width inside the network that mixes them"] = 128
    activation: Annotated[Activation, "non-linearity inside the adapters"] = "gelu"
    train_layernorm: Annotated[bool, "train all layer norms too, as in the paper"] = True
    sites: Annotated[str, "which sub-layers"] = "self: attention; ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"
    needs_tasks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check("norm" not in self.sites, self, "sites", "must leave norms to train_layernorm", "Try 'attention ffn'.")
        positive(self, "bottleneck", "width", "hidden")
        check(len(set(self.tasks)) == len(self.tasks), self, "tasks", "must differ", "Name each once.")

    def expression(self) -> str:
        return f"{self.sites}; norm" if self.train_layernorm else self.sites

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        tasks = Tasks(max(len(self.tasks), 1), self.width)
        grown: list[tuple[Site | None, Part]] = [(None, tasks)]
        for group in _stacks(sites):
            layers, places = _layers(group), _places(group)
            network = Hypernetwork(tasks, len(layers), len(places), self.hidden, self._shapes(group[0].outputs))
            grown.append((None, network))
            for site in group:
                at = layers.index(site.layer), places.index(_place(site))
                grown.append((site, Written(network, at, self.tasks, self.activation)))
        return grown + [(site, StandIn(site)) for site in sites if site.role == "norm"]

    def frozen(
        self, parts: Mapping[str, Part], task: str | None, examples: Sequence[Sequence[int]]
    ) -> tuple[Method, Mapping[str, Tensor]]:
        if examples:
            raise BadInput("HyperFormer reads no examples: name one of the tasks that it was trained on.")
        number = self.tasks.index(task) if task in self.tasks else 0
        kind = {"bottleneck": self.bottleneck, "activation": self.activation, "sites": self.sites}
        method = named("houlsby", {"houlsby": {**kind, "train_layernorm": False, "after_norm": True}})
        written = {key: part for key, part in parts.items() if isinstance(part, Written)}
        found = {f"{key}.{name}": tensor for key, p in written.items() for name, tensor in p.tensors(number).items()}
        if not self.train_layernorm:
            return method, found
        norms = {f"1.{key}.{name}": tensor for key, part in parts.items() if isinstance(part, StandIn)
                 for name, tensor in part.state_dict().items()}  # fmt: skip
        return method + named("ln_tuning"), {f"0.{name}": tensor for name, tensor in found.items()} | norms

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        t, h = self.width, self.hidden
        norms = sum(site.outputs * (1 + (site.bias is not None)) for site in sites if site.role == "norm")
        total = norms + max(len(self.tasks), 1) * t
        for group in _stacks(sites):
            total += (len(_layers(group)) + len(_places(group))) * t + (3 * t + 1) * h + (h + 1) * t + 2 * t
            total += sum((t + 1) * torch.Size(shape).numel() for shape in self._shapes(group[0].outputs).values())
        return total

    def _shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        r = self.bottleneck
        return {"down": (r, d), "down_bias": (r,), "up": (d, r), "up_bias": (d,), "gain": (d,), "shift": (d,)}


def _stacks(sites: Sequence[Site]) -> list[list[Site]]:
    """The sub-layers that one network writes for: those of a stack, of one width."""
    groups: dict[tuple[str, int], list[Site]] = {}
    for site in sites:
        if site.role != "norm":
            groups.setdefault((site.stack, site.outputs), []).append(site)
    return list(groups.values())


def _layers(group: Sequence[Site]) -> list[int | None]:
    return list(dict.fromkeys(site.layer for site in group))


def _place(site: Site) -> Place:
    return site.role, site.cross


def _places(group: Sequence[Site]) -> list[Place]:
    return list(dict.fromkeys(map(_place, group)))
