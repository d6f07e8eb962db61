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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

from torch import Tensor, nn

from graft import catalogue
from graft.anatomy.site import Site
from graft.errors import BadInput, sentence
from graft.moment import Moment as Moment
from graft.part import ACTIVATIONS as ACTIVATIONS
from graft.part import VERBS as VERBS
from graft.part import Activation as Activation
from graft.part import Part as Part
from graft.part import StandIn as StandIn
from graft.part import kaiming as kaiming
from graft.part import normal as normal
from graft.part import pair as pair
from graft.part import zeros as zeros
from graft.values import allowed
from graft.values import check as check
from graft.values import positive as positive
from graft.values import reduced as reduced

if TYPE_CHECKING:
    from graft.anatomy import Anatomy
    from graft.attach.adapter import Adapter

MAKING = ("build", "grow", "choose", "methods")  # a method defines one of these at least


@dataclass(frozen=True)
class Method:
    """Base of all methods: a frozen dataclass of hyperparameters. Subclasses are final and live one to a file.

    Class variables say what the engine and the trainer need to know: `family`, the method's own default
    `learning_rate`, how far an untrained adapter may be from the base (`start`: "exact", "near" or "elsewhere"),
    `in_place` for the rare method that trains the base's own tensors, and `needs_tasks` for one that learns several
    tasks at once: it has a field `tasks`, their names, which training takes from the rows where none are given.
    `needs_adapters`: it is made of adapters that are on the model, and has a field `adapters`, their names. `made_by`:
    the command that makes its adapters, where that is not `graft tune`.
    """

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 1e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "exact"
    in_place: ClassVar[bool] = False
    needs_tasks: ClassVar[bool] = False
    needs_adapters: ClassVar[bool] = False
    made_by: ClassVar[str] = ""

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

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        """A start of these parts that needs weights or data; most need neither. Those that trained keep what they have.

        Called whenever a run begins. With `needs_tasks` batches also name `tasks`.
        """

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        """Called once per optimizer step and phase; in phase `loss` a returned scalar is added to the loss."""

    @property
    def reads_gradients(self) -> bool:
        """Whether `during` reads or changes gradients, so that a step without any, as MeZO's, has to make them."""
        return False

    def settled(self, step: Moment) -> bool:
        """Whether what this step leaves may be what a run gives; a method that is pruned is not before that is over."""
        return True

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        """What a user should know about this method at these sites, such as tensors it had to create."""
        return ()

    def groups(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """Optimizer groups: everything trainable, by the parts' `rate`.

        A group's "lr" keeps its ratio to `learning_rate` where a run has another rate, unless it has "apart": True.
        """
        found: dict[float, list[nn.Parameter]] = {}
        for part in parts:
            found.setdefault(part.rate, []).extend(p for p in part.parameters() if p.requires_grad)
        slow = {rate: {} if rate == 1 else {"lr": rate * self.learning_rate} for rate in found}
        return [{"params": params, **slow[rate]} for rate, params in found.items()]

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
        return Sum((*self.methods(), *(other.methods() if isinstance(other, Method) else (other,))))

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

    def __post_init__(self) -> None:
        methods = isinstance(self.terms, tuple) and all(isinstance(term, Method) for term in self.terms)
        check(methods, self, "terms", "must be a tuple of methods", "A method is made by calling its class.")

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


def find(name: str) -> type[Method]:
    """The method class called `name`, by file name or class name.

    Raises BadInput with the nearest match, and for a class that is no method, saying what to change in which file.
    """
    kind = catalogue.method_class(name)
    if wrong := _wrong(kind):
        entry = catalogue.method(name)
        raise BadInput(f"{entry.path or entry.origin or entry.name}: {' '.join(wrong)}")
    return kind


def _wrong(kind: Any) -> list[str]:
    """What keeps a class from being a method, and what to do about it."""
    name = getattr(kind, "__name__", str(kind))
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        return [f"{name} is no graft.Method. A method is a class: @dataclass(frozen=True) class {name}(graft.Method)."]
    if "__dataclass_params__" not in vars(kind):  # those it inherits know nothing of its fields; all are frozen
        return [f"{name} is no dataclass, and its settings would be lost. Write @dataclass(frozen=True) above it."]
    if not any(getattr(kind, verb) is not getattr(Method, verb) for verb in MAKING):
        return [f"{name} makes nothing. Give it build(self, site), which returns the part of one site."]
    try:
        hints = get_type_hints(kind, include_extras=True)
    except Exception as error:  # a type may be any expression
        return [f"the types of {name}'s settings cannot be read: {type(error).__name__}: {sentence(error)}"]
    found = []
    for each in (each for each in fields(kind) if each.init):
        if each.default is MISSING and each.default_factory is MISSING:
            found.append(f"{name}.{each.name} has no default: give it one, for a method is made by its name alone.")
        if not any(isinstance(text, str) for text in getattr(hints[each.name], "__metadata__", ())):
            found.append(f'{name}.{each.name} has no help: write {each.name}: Annotated[type, "what it is"].')
    return found


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
