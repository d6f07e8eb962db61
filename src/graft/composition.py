"""Adapters that are on a model, made into one more: a value that `graft.attach` takes like a method.

    graft.attach(model, graft.Stack(("language", "task")), "both")
    graft.attach(model, graft.Average(("monday", "tuesday"), weights=(0.7, 0.3)), "mean")

What is attached is an ordinary adapter with copies of the tensors: it trains, is saved and merges as such, and the
adapters that it came from may go. Side by side instead of one after the other is `graft.Parallel`, with an attention
that chooses `graft.AdapterFusion`, one for each row of a batch `graft.use(model, ["language", "task"])`.

    graft.attach(model, graft.Frozen("shared", task="qa"), "qa")

makes an adapter that knows several tasks an ordinary one for one of them, and one
that reads examples one for those of a task, or for `examples`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from graft.errors import BadInput, Refused
from graft.method import Method, check, joined

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter


@dataclass(frozen=True)
class Stack(Method):
    """Adapters one after the other, each on what the ones before it leave (MAD-X, arXiv 2005.00052). Becomes a sum."""

    adapters: Annotated[tuple[str, ...], "their names, the first to act first"] = ()

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, dict[str, Tensor]]:
        return joined([(each.method.serving(), tensors(each)) for each in chosen(self, self.adapters, adapters)])


@dataclass(frozen=True)
class Average(Method):
    """The weighted sum of the tensors of adapters of one method (model soups, arXiv 2203.05482). Stays that method.

    Meant for adapters that began alike: the average of A and of B of two LoRA is not that of their updates B·A.
    """

    adapters: Annotated[tuple[str, ...], "their names"] = ()
    weights: Annotated[tuple[float, ...], "of each; all alike, and 1 together, where none are given"] = ()

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, dict[str, Tensor]]:
        given = chosen(self, self.adapters, adapters)
        shares = weights(self, self.weights, len(given))
        first, *others = (each.method.serving() for each in given)
        for name, other in zip(self.adapters[1:], others, strict=True):
            if other != first:
                raise BadInput(
                    f"Average: {name!r} is {other} and {self.adapters[0]!r} is {first}. Average adapters of one method "
                    "with the same hyperparameters, or put them side by side with Parallel."
                )
        found = [tensors(each) for each in given]
        if odd := [key for key in found[0] if any(each.keys() != found[0].keys() for each in found)
                   or any(each[key].shape != found[0][key].shape for each in found)]:  # fmt: skip
            raise BadInput(f"Average: the adapters have different tensors, as {odd[0]}. Average adapters of one kind.")
        return first, {key: _mean(key, [each[key] for each in found], shares) for key in found[0]}


@dataclass(frozen=True)
class Frozen(Method):
    """An adapter that knows several tasks, or reads examples, as an ordinary one. Becomes a method without either."""

    adapter: Annotated[str, "its name"] = "default"
    task: Annotated[str | None, "the task, where it knows several"] = None
    examples: Annotated[tuple[tuple[int, ...], ...], "token ids of rows to read instead, each with its answer"] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = all(row and min(row) >= 0 for row in self.examples)
        check(rows, self, "examples", "must be rows of token ids, which are at least 0", "Leave out what is none.")

    def upon(self, adapters: "Mapping[str, Adapter]") -> "tuple[Method, Mapping[str, Tensor]]":
        if self.adapter not in adapters:
            there = ", ".join(adapters) or "none"
            raise BadInput(f"Frozen: there is no adapter {self.adapter!r} on this model; attached are: {there}.")
        live = adapters[self.adapter]
        check(not (self.task and self.examples), self, "examples", "stand in a task's place", "Give one of the two.")
        self._check_ids(live.model)
        if not self.examples and self.task not in live.tasks and (self.task is not None or len(live.tasks) > 1):
            knows = f"{self.adapter!r} knows the tasks {', '.join(live.tasks)}" if live.tasks else "it knows no tasks"
            seen = "none was named" if self.task is None else f"none is called {self.task!r}"
            raise BadInput(f"Frozen: {knows}, and {seen}. Write task={(live.tasks or (None,))[0]!r}.")
        found = list(self._terms(live))
        if [method for method, _ in found] == [term.serving() for term in live.method.methods()]:
            raise Refused(f"Frozen: {self.adapter!r} ({live.method}) is an ordinary adapter already. Use it as it is.")
        heads = {f"{p.key}.{n}": t for p in live.placed if p.head for n, t in p.part.state_dict().items()}
        method, tensors = found[0] if len(found) == 1 else joined(found)
        return method, {**tensors, **heads}

    def _check_ids(self, model: Any) -> None:
        """Refuse ids that the base has no embedding of."""
        largest = max((max(row) for row in self.examples), default=-1)
        if largest >= (known := len(model.get_input_embeddings().weight)):
            raise BadInput(
                f"Frozen: examples have the id {largest}, and the base knows {known:,}, from 0. Use its own tokenizer."
            )

    def _terms(self, live: "Adapter") -> "Iterator[tuple[Method, Mapping[str, Tensor]]]":
        """Each method of the sum, frozen."""
        terms = live.method.methods()
        for number, term in enumerate(terms):
            mark = f"{number}." if len(terms) > 1 else ""
            own = {p.key.removeprefix(mark): p.part for p in live.placed if p.term == number and not p.head}
            with torch.no_grad():
                yield term.frozen(own, self.task, self.examples)


def _mean(key: str, values: list[Tensor], shares: tuple[float, ...]) -> Tensor:
    if values[0].is_floating_point():
        return sum((share * value for share, value in zip(shares, values, strict=True)), values[0].new_zeros(()))
    if any(not value.equal(values[0]) for value in values):
        raise Refused(f"Average: {key} holds places, which differ and have no mean. Put them side by side: Parallel.")
    return values[0]


def chosen(method: Method, names: tuple[str, ...], adapters: "Mapping[str, Adapter]") -> "list[Adapter]":
    """The adapters of these names. Raises BadInput for fewer than two and for one that is not there, Refused for one
    that trains the base's own tensors."""
    kind = type(method).__name__
    # Such is what `graft tune` attaches to, where nothing can be loaded before.
    plain = " Of folders, `graft tune --upon A B` trains it, and `graft combine` makes one without training."
    plain = "" if adapters else plain
    if len(names) < 2 or len(set(names)) < len(names):
        raise BadInput(
            f"{kind}: it needs at least two adapters, each named once, as in adapters=('first', 'second'), got "
            f"{names!r}.{plain}"
        )
    if missing := [name for name in names if name not in adapters]:
        raise BadInput(
            f"{kind}: there is no adapter {', '.join(missing)} on this model; attached are: "
            f"{', '.join(adapters) or 'none'}. Load it first: graft.load(model, folder, name={missing[0]!r}).{plain}"
        )
    found = [adapters[name] for name in names]
    if trained := [each.name for each in found if each.trained]:
        raise Refused(f"{kind}: {trained[0]!r} trains the base's own tensors, of which there is one set.")
    return found


def weights(method: Method, given: tuple[float, ...], count: int) -> tuple[float, ...]:
    """The weights of so many adapters: all alike where none are given. Raises BadInput."""
    fits = len(given) in (0, count)
    check(fits, method, "weights", f"must be {count} numbers, one for each adapter", "For all alike, weights=().")
    idle = bool(given) and not any(given)
    check(not idle, method, "weights", "must not all be 0, which would leave the base", "For all alike, weights=().")
    return given or (1 / count,) * count


def tensors(adapter: "Adapter") -> dict[str, Tensor]:
    """What is stored of an adapter, by the key of the part and the name in it."""
    return {f"{k}.{n}": t.detach() for k, part in adapter.deployed().items() for n, t in part.state_dict().items()}
