"""Contestants made alike: each as large as it can be within so many trainable parameters, or so much memory.

    trainable=0.5%     of the base's parameters; trainable=100000 is a number
    memory=2GB         of one training step: weights, what the optimizer keeps, what a forward keeps for its backward

Sizes are the hyperparameters that a method names (`Method.sizes`): rank, bottleneck, tokens, blocks. Those of a sum,
and several of one method, change in proportion. What has one size only (all biases, an entrant, full fine-tuning) stays
as it is.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from graft.anatomy import skeleton
from graft.attach import attach, detach
from graft.attach.adapter import Adapter, base_parameters
from graft.attach.mode import in_mode
from graft.attach.probe import sample
from graft.errors import BadInput, NotApplied, Refused
from graft.memory import kept_bytes
from graft.method import Method, Sum
from graft.page.words import prefixed
from graft.tournament.contestant import Contestant

NAME = "matching"
NUMBER = re.compile(r"(\d[\d_,]*(?:\.\d+)?(?:e\d+)?)\s*([a-z%]*)")
COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "%": 0.01}
BYTES = {f"{letter}{middle}b": float(size**power) for middle, size in (("", 1000), ("i", 1024))
         for power, letter in enumerate(("", "k", "m", "g", "t")) if middle == "" or letter}  # fmt: skip
EXAMPLES = "trainable=0.5%, trainable=100000 or memory=2GB"
LARGEST = 2**20
SHARE = 1e-4  # in which a density is counted
FEW = 8  # of these are tried to see whether cost rises
SCALE = sorted({*(2**n for n in range(14)), *(3 * 2**n for n in range(12))})  # likely divisors of a width
HELD = 4  # copies of a tensor that trains: itself (or, in place, its original), its gradient, two moments

Cost = Callable[[Method], float]


@dataclass(frozen=True)
class Budget:
    """What contestants are matched by: `kind` trainable or memory, and so much of it; `share`: of the base's."""

    kind: str
    most: float
    share: bool = False

    def shown(self, value: float) -> str:
        """A value of this kind, for people."""
        return prefixed(value, "B") if self.kind == "memory" else f"{value:,.0f} trainable"


def budget(text: str) -> Budget:
    """Read `trainable=0.5%` or `memory=2GB`. Raises BadInput, saying what is wrong with it."""
    kind, equals, value = (part.strip().lower() for part in text.partition("="))
    if kind not in ("trainable", "memory") or not equals:
        near = difflib.get_close_matches(kind, ("trainable", "memory"), 1)
        hint = f" Did you mean {near[0]}=?" if near and kind != near[0] else ""
        raise BadInput(f"match: {text!r} is neither trainable=… nor memory=…; write {EXAMPLES}.{hint}")
    found = NUMBER.fullmatch(value)
    if not found:
        raise BadInput(f"match: {value!r} in {text!r} is no number with a unit; write {EXAMPLES}.")
    units = COUNTS if kind == "trainable" else BYTES
    number, unit = float(found[1].replace(",", "").replace("_", "")), found[2]
    if unit not in units:
        said = f"there is no unit {unit!r}" if unit else "a unit is missing"
        raise BadInput(f"match: {said} in {text!r}; {kind} is given in {', '.join(filter(None, units))}.")
    if not 0 < number < math.inf or (unit == "%" and number > 100):
        raise BadInput(f"match: {value} in {text!r} is no amount above 0{' and up to 100 %' if unit == '%' else ''}.")
    return Budget(kind, number * units[unit], unit == "%")


def matched(
    contestants: Sequence[Contestant], target: str, model: nn.Module, *, batch: int = 32, tokens: int = 128
) -> tuple[list[Contestant], list[str]]:
    """The contestants at the largest size within `target`, and a note on each: what it got, or why it stays as it is.

    Trainable parameters, the task head's included, follow from the configuration of `model` alone; memory is measured
    on one row of `tokens` tokens and taken `batch` times. A method that is above the target at its smallest is left at
    its smallest. Raises BadInput for a target that says nothing, and Refused where `model` has adapters.
    """
    wanted = budget(target)
    if wanted.share:
        wanted = replace(wanted, most=wanted.most * base_parameters(model))
    cost = _trainable(model) if wanted.kind == "trainable" else _memory(model, batch, tokens)
    made, notes = [], []
    for contestant in contestants:
        found, note = _matched(contestant, wanted, cost)
        made.append(found)
        notes.append(f"{contestant.name}: {note}")
    return made, notes


def _matched(contestant: Contestant, wanted: Budget, cost: Cost) -> tuple[Contestant, str]:
    way = contestant.way
    if not isinstance(way, Method):
        return contestant, "is not fine-tuning, and stays as it is"
    try:
        now = _cost(cost, lambda: way)
        sizes = [name for term in _terms(way) for name in term.sizes()]
        swept = {axis.rpartition(".")[2] for axis, _ in contestant.at} & set(sizes)
        if not sizes or swept:
            why = f"its {', '.join(sorted(swept))} is swept" if swept else "it has one size"
            return contestant, f"{why}, and stays as it is ({_shown(wanted, now)})"
        best = _largest(lambda size: _cost(cost, lambda: resized(way, size)), wanted.most)
    except NotApplied as error:
        return contestant, f"stays as it is, for it does not fit this model: {error}"
    if best is None:
        return contestant, "stays as it is: no size of it fits this model"
    method = resized(way, best)
    reached = cost(method)
    above = ", above" if reached > wanted.most else " of"
    note = f"{_spelled(way, method)}, {wanted.shown(reached)}{above} {wanted.shown(wanted.most)} asked for"
    return replace(contestant, way=method), note


def resized(method: Method, size: int) -> Method:
    """The method with the largest of its sizes set to `size`, the others in proportion, none below 1.

    The size of a share, such as a density, is how many ten-thousandths it is.
    """
    terms = _terms(method)
    largest = max(getattr(term, name) / _unit(term, name) for term in terms for name in term.sizes())
    made: list[Method] = []
    for term in terms:
        values = {name: getattr(term, name) / _unit(term, name) * size / largest for name in term.sizes()}
        made.append(replace(term, **{name: max(1, round(v)) * _unit(term, name) for name, v in values.items()}))
    return Sum(tuple(made)) if isinstance(method, Sum) else made[0]


def _unit(term: Method, name: str) -> float:
    """What a size is counted in."""
    return SHARE if isinstance(getattr(term, name), float) else 1


def _terms(method: Method) -> tuple[Method, ...]:
    # A hybrid is one method to who writes it: it has the sizes, not what it is a sum of.
    return method.terms if isinstance(method, Sum) else (method,)


def _largest(cost: Callable[[int], float], most: float) -> int | None:
    """The size that costs most without costing more than `most`; else the one that costs least; None: all impossible.

    A size that is impossible costs infinitely much. Cost rises with the size, or falls with it (a divisor).
    """
    likely = ((size, value) for size in SCALE if (value := cost(size)) < math.inf)
    low, least = next(likely, (0, math.inf))
    if math.isinf(least):
        return None
    following = next((value for size in SCALE[1:FEW] if size > low and (value := cost(size)) < math.inf), math.inf)
    if following < least:
        possible = [(value, size) for size in SCALE if (value := cost(size)) < math.inf]
        return max((each for each in possible if each[0] <= most), default=min(possible))[1]
    if least > most:
        return low
    high = 2 * low
    while high < LARGEST and cost(high) <= most:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= most else (low, middle)
    reached = cost(low)
    below = 0 if low > 1 and cost(low - 1) == reached else low - 1  # all that there is to have is had before
    while low - below > 1:
        middle = (low + below) // 2
        low, below = (middle, below) if cost(middle) == reached else (low, middle)
    return low


def _cost(cost: Cost, make: Callable[[], Method]) -> float:
    try:
        return cost(make())
    except (BadInput, Refused):  # more than the model has room for
        return math.inf


def _trainable(model: nn.Module) -> Cost:
    """Trainable elements, head included, by attaching to a model of the same shape without weights."""
    config: Any = copy(model.config)
    config.architectures = [type(model).__name__]
    bare = skeleton(config)

    def cost(method: Method) -> float:
        with _attached(bare, method) as adapter:
            return sum(parameter.numel() for parameter in adapter.parameters())

    return cost


def _memory(model: nn.Module, batch: int, tokens: int) -> Cost:
    """Bytes of one training step, on the model itself."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    row = sample(model)
    ids = row["input_ids"]
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokens  # type: ignore[operator,union-attr]
    body = ids[:, :-1].repeat(1, -(-tokens // (ids.shape[1] - 1)))[:, : max(min(tokens, limit // 8 * 8) - 1, 1)]
    ids = torch.cat((body, ids[:, -1:]), 1)  # some heads look for the token that ends a text
    row = {name: torch.ones_like(ids) if "mask" in name else ids for name in row}

    def forward() -> Any:
        return model(**row).logits.float().logsumexp(-1).sum()

    def cost(method: Method) -> float:
        with _attached(model, method) as adapter, in_mode(model, training=True):
            held = sum(p.numel() * p.element_size() for p in adapter.parameters())
            return weights + HELD * held + batch * kept_bytes(forward)

    return cost


@contextmanager
def _attached(model: nn.Module, method: Method) -> Iterator[Adapter]:
    """A method on a model for a moment, drawing none of the caller's random numbers."""
    with torch.random.fork_rng():
        # How many tokens a text begins with decides no size.
        adapter = attach(model, method, NAME, tokenizer=lambda text, **_: {"input_ids": [0]})
        try:
            yield adapter
        finally:
            detach(model, NAME)


def _shown(wanted: Budget, value: float) -> str:
    return wanted.shown(value) if math.isfinite(value) else "too large"


def _spelled(before: Method, after: Method) -> str:
    """What was set, `rank 12 instead of 8`."""
    pairs = [
        (
            name,
            *(
                f"{value:g}" if isinstance(value, float) else value
                for value in (getattr(new, name), getattr(old, name))
            ),
        )
        for old, new in zip(_terms(before), _terms(after), strict=True)
        for name in old.sizes()
    ]
    return ", ".join(f"{name} {new}" + (f" instead of {old}" if new != old else "") for name, new, old in pairs)
