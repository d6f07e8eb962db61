"""The contract: a method is a frozen set of hyperparameters that builds parts; a part says by its verbs what it does.

Nothing else about a method matters to the rest of graft. A part defines any of

    before       changes what enters a site
    after        changes what leaves it
    params       gives new values for the site's parameters; having it is being mergeable
    keys_values  adds keys and values to an attention
    tokens       adds virtual tokens in front of a row, or in front of what enters a layer
    around       runs a layer in its own way: once, again, in halves or not at all

and never asks what kind of layer, model, adapter name or device it sits on: the engine in `graft.attach` owns that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft import catalogue
from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.moment import Moment as Moment
from graft.values import allowed
from graft.values import check as check
from graft.values import positive as positive

if TYPE_CHECKING:
    from graft.anatomy import Anatomy
    from graft.attach.adapter import Adapter
    from graft.attach.around import Inner
    from graft.attach.call import Call

Activation = Literal["relu", "gelu", "gelu_new", "silu", "tanh"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_new": partial(nn.functional.gelu, approximate="tanh"),
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}

VERBS = ("before", "after", "params", "keys_values", "tokens", "around")


class Part(nn.Module):
    """The trainable tensors of one method at one site, and what they do there.

    Subclasses are final: they own Parameters and buffers (no `nn.Linear`, which the next "all-linear" or a quantizer
    would find) and define verbs. Verbs are pure in their arguments: with gradient checkpointing they run twice.
    """

    dropout: float = 0.0
    length: int = 0  # virtual tokens or keys it adds; real tokens' positions move by as many
    reads_residual: bool = False  # whether `after` asks the call for the residual stream
    reads_input: bool = False  # whether `keys_values` asks the call for what enters the attention
    reads_row: Literal["embeds", "states"] | None = None  # what `tokens` at `embed` asks the call for, of whole rows
    trims: bool = True  # whether the outputs at virtual tokens are cut off again
    halves: bool = False  # whether `around` runs the two halves of a layer apart
    replaces: tuple[str, ...] = ()  # parameters of its site that it gives anew, whatever others make of them
    listens: bool = False  # whether it only looks at what passes its site, and changes nothing there
    in_layer: int | None = None  # which layer it acts in, where its method has to know
    off: frozenset[bool] = frozenset()  # in which modes, training or not, it does nothing for now

    def before(self, x: Tensor, site: Site, call: "Call") -> Tensor:
        """What enters the site instead of `x`."""
        raise NotImplementedError

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        """What leaves the site instead of `y`, given what entered."""
        raise NotImplementedError

    def params(self, site: Site) -> dict[str, Tensor]:
        """New values by parameter name: `weight` dense (out, in), `bias` (out,); the engine puts them in place."""
        raise NotImplementedError

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values, each (n, key heads, width), or (rows, n, ...) for each of `call.tasks`; a gate or None.

        A gate (heads,) means their own softmax; one (rows, queries) multiplies keys and values within the common one,
        for each query.
        """
        raise NotImplementedError

    def tokens(self, call: "Call") -> Tensor:
        """Virtual tokens: (n, embedding width) at `embed`, (n, width) at a `layer`, which gives none to the next.

        With `reads_row` each row has its own: (batch, n, embedding width).
        """
        raise NotImplementedError

    def around(self, inner: "Inner", x: Tensor, site: Site, call: "Call") -> Tensor:
        """What leaves a `layer` that is fed `x`; `inner` runs it. The part's tensors are in their own precision here.

        A layer that gives more than its hidden states, as T5's do, has to run at least once.
        """
        raise NotImplementedError

    @classmethod
    def verbs(cls) -> frozenset[str]:
        """The verbs this part defines."""
        return frozenset(verb for verb in VERBS if getattr(cls, verb) is not getattr(Part, verb))

    def changed(self, site: Site) -> int:
        """Entries of the base that differ after merging."""
        return sum(value.numel() for value in self.params(site).values()) if "params" in self.verbs() else 0

    def bound(self, site: Site) -> int:
        """Upper bound on the rank of the update to the site's matrix; 0 where no matrix changes."""
        changes_matrix = "params" in self.verbs() and site.parameter in self.params(site) and site.weight.dim() > 1
        return min(site.inputs, site.outputs) if changes_matrix else 0

    def borrow(self, other: "Part") -> None:
        """Use another part's tensors without owning them: they are registered, saved and counted once, elsewhere."""
        self.lent = (*getattr(self, "lent", ()), other)

    def low_rank(self, site: Site, rank: int) -> "Part":
        """Refuse a site without a matrix, and a rank the site has no room for."""
        if site.weight.dim() < 2:
            raise Refused(
                f"{type(self).__name__} cannot act at {site.name}: its weight is a vector and a low-rank update needs "
                "a matrix. Choose other sites."
            )
        if rank > min(site.inputs, site.outputs):
            raise BadInput(
                f"rank {rank} at {site.name}, a {site.outputs} by {site.inputs} matrix: choose at most "
                f"{min(site.inputs, site.outputs)}."
            )
        return self

    def matrix(self, site: Site, looked_up: bool = True) -> "Part":
        """Refuse a site whose weight is not one matrix, and unless `looked_up` one whose inputs are ids."""
        if site.weight.dim() == 2 and (looked_up or not isinstance(site.module, nn.Embedding)):
            return self
        kind = "an embedding" if site.weight.dim() == 2 else "a vector" if site.weight.dim() < 2 else "a stack of them"
        raise Refused(
            f"{type(self).__name__} cannot act at {site.name}: it changes the matrix of a linear map, and the weight "
            f"there is {kind}. Choose other sites."
        )

    @property
    def rests(self) -> bool:
        """Whether it does nothing just now."""
        return self.training in self.off

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Take the sizes of stored tensors that are about to be put in; for parts whose sizes training decides."""

    def drop(self, x: Tensor) -> Tensor:
        """Dropout on the part's own branch: active in training mode only."""
        return nn.functional.dropout(x, self.dropout, self.training)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Part":
        # `model.to(bfloat16)` moves a part but never rounds it: adapters train in fp32 under a half-precision base.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype != tensor.dtype else moved

        return super()._apply(keep_dtype, recurse)


@dataclass(frozen=True)
class Method:
    """Base of all methods: a frozen dataclass of hyperparameters. Subclasses are final and live one to a file.

    Class variables say what the engine and the trainer need to know: `family`, the method's own default
    `learning_rate`, how far an untrained adapter may be from the base (`start`: "exact", "near" or "elsewhere"),
    `in_place` for the rare method that trains the base's own tensors, and `needs_tasks` for one that learns several
    tasks at once: it has a field `tasks`, their names, which training takes from the rows where none are given.
    `needs_adapters`: it is made of adapters that are on the model, and has a field `adapters`, their names.
    """

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 1e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "exact"
    in_place: ClassVar[bool] = False
    needs_tasks: ClassVar[bool] = False
    needs_adapters: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse values that a field's type does not allow; a method with rules of its own calls this first."""
        for f in fields(self):
            allowed(self, f.name, f.type, f.default)

    def expression(self) -> str:
        """The site expression this method asks for."""
        return getattr(self, "sites", "")

    def upon(self, adapters: "Mapping[str, Adapter]") -> "tuple[Method, Mapping[str, Tensor]]":
        """This method on a model with these adapters: as it is there, and tensors that its parts begin with, by name.

        For methods that take something from other adapters. Raises BadInput and Refused where it cannot be had.
        """
        return self, {}

    def made_of(self, adapters: tuple[str, ...]) -> "Method":
        """This method with the names of adapters, where it needs some and was not told which."""
        return replace(self, adapters=adapters) if self.needs_adapters and not getattr(self, "adapters", ()) else self  # type: ignore[call-arg]

    def build(self, site: Site) -> Part:
        """One part for one site. `site.weight` and `site.bias` are readable."""
        raise NotImplementedError

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        """Parts for all sites at once, for methods whose parts share tensors; a part without a site is shared."""
        return [(site, self.build(site)) for site in sites]

    def choose(self, anatomy: "Anatomy", model: nn.Module) -> Iterable[str]:
        """Paths of the base's own parameters to train in place; only a method with `in_place` names any."""
        return ()

    def count(self, sites: Sequence[Site]) -> int:
        """Trainable parameters by the method's own formula, from shapes alone."""
        raise NotImplementedError

    def drawn(self, sites: Sequence[Site]) -> int:
        """Numbers that are drawn when it is attached: more than what trains, where some of them are left out then."""
        return self.count(sites)

    def sizes(self) -> tuple[str, ...]:
        """The hyperparameters that make it larger, or smaller, when they are changed in proportion; () for one size."""
        return ()

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """A start that needs weights or data; most need neither. With `needs_tasks` batches also name `tasks`."""

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        """Called once per optimizer step and phase; in phase `loss` a returned scalar is added to the loss."""

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        """What a user should know about this method at these sites, such as tensors it had to create."""
        return ()

    def groups(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """Optimizer groups; one group of everything trainable unless the method wants another."""
        return [{"params": [p for part in parts for p in part.parameters() if p.requires_grad]}]

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        """The parts that are stored and served, by key; a method whose training form is larger gives smaller ones."""
        return parts

    def serving(self) -> "Method":
        """The method of the deployed form: `self` unless deployment changes the hyperparameters."""
        return self

    def frozen(
        self, parts: Mapping[str, Part], task: str | None, examples: Sequence[Sequence[int]]
    ) -> "tuple[Method, Mapping[str, Tensor]]":
        """An ordinary method that does for one task, or for examples, what this one does, and its tensors by name."""
        served = self.deployed(parts).items()
        return self.serving(), {f"{key}.{name}": t for key, part in served for name, t in part.state_dict().items()}

    def methods(self) -> tuple["Method", ...]:
        """The methods this is a sum of, left to right."""
        return (self,)

    def __add__(self, other: "Method") -> "Sum":
        return Sum((*self.methods(), *other.methods()))

    @classmethod
    def slug(cls) -> str:
        """The name of the method's file, which is its name on the command line."""
        return cls.__module__.rpartition(".")[2]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Another process knows a method that the user gave as a file once it has that file.
        entry = catalogue.outside(type(self))
        return (_from_file, (str(entry.path), vars(self))) if entry and entry.path else super().__reduce_ex__(protocol)


@dataclass(frozen=True)
class Sum(Method):
    """Several methods as one adapter, applied left to right. Written `LoRA() + PrefixTuning()`."""

    terms: Annotated[tuple[Method, ...], "the methods, in the order they are applied"] = ()
    family: ClassVar[str] = "hybrid"

    def methods(self) -> tuple[Method, ...]:
        return self.terms

    def serving(self) -> "Method":
        return Sum(tuple(term.serving() for term in self.terms))

    def made_of(self, adapters: tuple[str, ...]) -> "Method":
        return Sum(tuple(term.made_of(adapters) for term in self.terms))

    def upon(self, adapters: "Mapping[str, Adapter]") -> "tuple[Method, Mapping[str, Tensor]]":
        return joined([term.upon(adapters) for term in self.terms])

    @property
    def learning_rate(self) -> float:  # type: ignore[override]
        """The smallest of the terms' own rates; each term keeps its own group in training."""
        return min(term.learning_rate for term in self.terms)


def joined(found: "Iterable[tuple[Method, Mapping[str, Tensor]]]") -> tuple[Sum, dict[str, Tensor]]:
    """One sum of methods that come with tensors, by the keys of their parts, and these by the keys in the sum.

    Tensors of a task head, of which an adapter has one, are those of the last that has them.
    """
    terms: list[Method] = []
    tensors: dict[str, Tensor] = {}
    for method, own in found:
        for name, tensor in own.items():
            number, _, rest = name.partition(".")
            if number != "head":
                place = (int(number), rest) if len(method.methods()) > 1 else (0, name)
                name = f"{len(terms) + place[0]}.{place[1]}"
            tensors[name] = tensor
        terms += method.methods()
    return Sum(tuple(terms)), tensors


class StandIn(Part):
    """Trains a site's own parameters through copies, so that the base stays untouched. Used for task heads."""

    def __init__(self, site: Site, names: Sequence[str] = ("weight", "bias")) -> None:
        super().__init__()
        self.names = tuple(name for name in names if getattr(site.module, name, None) is not None)
        self.replaces = self.names
        for name in self.names:
            self.register_parameter(name, nn.Parameter(site.view(name).detach().clone().float()))

    def params(self, site: Site) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.names}


def kaiming(*shape: int) -> nn.Parameter:
    """A (…, out, in) parameter with U(±1/√in) entries: `kaiming_uniform` with a = √5, as linear layers start."""
    bound = shape[-1] ** -0.5
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def normal(*shape: int, std: float) -> nn.Parameter:
    """A parameter with N(0, std²) entries."""
    return nn.Parameter(torch.empty(*shape).normal_(0.0, std))


def zeros(*shape: int) -> nn.Parameter:
    """A parameter of zeros."""
    return nn.Parameter(torch.zeros(*shape))


def find(name: str) -> type[Method]:
    """The method class called `name`, by file name or class name. Raises BadInput with the nearest match."""
    kind = catalogue.method_class(name)
    if not issubclass(kind, Method):
        raise BadInput(f"{kind.__module__}.{kind.__name__} is no graft.Method: a method is a frozen dataclass of that.")
    return kind


def named(name: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Method:
    """The method written `name`, such as "lora", "lora+prefix_tuning" or "./mine.py", with hyperparameters by method.

    Raises BadInput for an unknown method, an unknown hyperparameter or settings of a method that `name` lacks.
    """
    settings = dict(settings or {})
    terms = []
    for word in name.split("+"):
        kind = find(catalogue.asked(word).name)
        values = dict(settings.pop(kind.slug(), {}))
        known = {f.name for f in fields(kind)}
        if unknown := sorted(values.keys() - known):
            raise BadInput(f"{kind.slug()} has no option {', '.join(unknown)}; it has: {', '.join(sorted(known))}.")
        terms.append(kind(**values))
    if settings:
        raise BadInput(
            f"settings for {', '.join(settings)}, but the method is {name!r}. Remove them or add the method."
        )
    return terms[0] if len(terms) == 1 else sum(terms[2:], terms[0] + terms[1])


def describe(method: Method) -> dict[str, Any]:
    """The method as plain data: {"method": slug, **hyperparameters}, or {"sum": [...]}. `restore` reads it.

    With a method that is not graft's own, "from" says where one gets it.
    """
    if isinstance(method, Sum):
        return {"sum": [describe(term) for term in method.terms]}
    entry = catalogue.outside(type(method))
    origin = {"from": entry.origin} if entry else {}
    return {"method": type(method).slug(), **origin, **{f.name: getattr(method, f.name) for f in fields(method)}}


def restore(description: Mapping[str, Any]) -> Method:
    """The method that `describe` described. Unknown hyperparameters and methods raise BadInput."""
    if "sum" in description:
        return Sum(tuple(restore(term) for term in description["sum"]))
    values = {key: value for key, value in description.items() if key != "from"}
    kind = find(str(values.pop("method", "")))
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        raise BadInput(
            f"{kind.slug()}: this version of graft does not know {', '.join(unknown)}. Update graft to load it."
        )
    missing = [n for n, f in known.items() if n not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise BadInput(f"{kind.slug()}: the description lacks {', '.join(missing)}.")
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _from_file(path: str, values: dict[str, Any]) -> Method:
    return find(catalogue.asked(path).name)(**values)
