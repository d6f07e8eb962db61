"""How many numbers a method trains, as a formula: fitted to what its own count says, and shown only where exact.

On decoders of L layers, width d, feed-forward width f and H heads, a count is nearly always a polynomial: linear in L
and H and in each of the method's sizes, quadratic in the widths. As many counts as it has coefficients give them; more
counts, on larger models, say whether it is true.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np

from graft.anatomy import examine, select, skeleton
from graft.anatomy.site import Site
from graft.errors import GraftError
from graft.method import Method

UNIT, HEADS = 3840, 4  # widths are multiples of a number that most factors divide
# What is counted: (layers, heads, (width, feed-forward width)), the last three as multiples. One point for each power.
POINTS = tuple(itertools.product((1, 2), (1, 2), ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3))))
POWERS = tuple(itertools.product((0, 1), (0, 1), ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))))
CHECKS = ((40, 3, (2, 3)), (3, 2, (4, 2)))

Shape = tuple[int, int, tuple[int, int]]
Polynomial = dict[tuple[int, ...], Fraction]  # coefficients by the powers of (L, H, d, f, and the method's sizes)


def formula(method: Method) -> str:
    """What a method trains, as in "4·L·d·rank": its sizes by their names, or their values where they are no factors.

    Empty where no polynomial says it.
    """
    return written(*polynomial(method))


def growth(method: Method) -> str:
    """What most of the numbers of one layer are proportional to, as in "d·rank"; f counts as d. Empty as `formula`."""
    found, names = polynomial(method)
    inside = [(heads, width + inner, *rest) for layers, heads, width, inner, *rest in found if layers]
    most = max(map(sum, inside), default=0)
    terms = [_term(Fraction(1), powers, ("H", "d", *names[4:])) for powers in inside if sum(powers) == most]
    return " + ".join(dict.fromkeys(terms))


def polynomial(method: Method) -> tuple[Polynomial, tuple[str, ...]]:
    """The polynomial and what its variables are called; ({}, ()) where there is none."""
    sizes = [name for name in method.sizes() if type(getattr(method, name)) is int]
    for names in dict.fromkeys([tuple(sizes), tuple(sizes[:1]), ()]):
        if found := fitted(method, names):
            return found, ("L", "H", "d", "f", *names)
    return {}, ()


def fitted(method: Method, names: Sequence[str]) -> Polynomial:
    """The polynomial in the architecture and the sizes called `names`; {} where there is none."""
    sizings = list(itertools.product((1, 2), repeat=len(names)))
    powers = list(itertools.product(POWERS, itertools.product((0, 1), repeat=len(names))))
    points = list(itertools.product(POINTS, sizings))
    rows = [[_power(flat(*point), flat(*power)) for power in powers] for point in points]
    try:
        counts = [count(method, names, *point) for point in points]
        units = (1, HEADS, UNIT, UNIT, *(getattr(method, name) for name in names))
        solved = zip(powers, np.linalg.solve(rows, counts), strict=True)
        found = {flat(*power): Fraction(round(value), _power(units, flat(*power))) for power, value in solved}
        found = {power: value for power, value in found.items() if value}
        checks = [(shape, sizing) for shape in CHECKS for sizing in ((1,) * len(names), (3,) * len(names))]
        fits = all(
            count(method, names, *point) == _value(found, np.multiply(flat(*point), units).tolist()) for point in checks
        )
    except (GraftError, NotImplementedError):
        return {}  # some of these models, or of these sizes, it cannot be on
    return found if fits else {}


def count(method: Method, names: Sequence[str], shape: Shape, sizing: Sequence[int]) -> int:
    """What the method says that it trains on one decoder, with some of its sizes so many times as large."""
    larger = {name: getattr(method, name) * times for name, times in zip(names, sizing, strict=True)}
    if larger:
        method = replace(method, **larger)
    own = type(method).count is not Method.count
    terms = [(term, term.expression()) for term in ((method,) if own and method.expression() else method.methods())]
    if not all(expression for _, expression in terms):
        raise NotImplementedError
    return sum(term.count(_sites(shape, expression)) for term, expression in terms)


def written(found: Polynomial, names: Sequence[str]) -> str:
    """A polynomial as text, what its terms share in front of them."""
    if not found:
        return ""
    ordered = sorted(found.items(), key=lambda term: (-sum(term[0]), [-power for power in term[0]]))
    shared = tuple(min(powers) for powers in zip(*found, strict=True)) if len(found) > 1 else (0,) * len(names)
    scale = math.gcd(*(value.numerator for value in found.values())) if len(found) > 1 else 1
    whole = all(value.denominator == 1 for value in found.values())
    front = _term(Fraction(scale if whole else 1), shared, names)
    terms = [
        _term(value / (scale if whole else 1), [power - out for power, out in zip(powers, shared, strict=True)], names)
        for powers, value in ordered
    ]
    said = " + ".join(terms).replace("+ -", "− ")
    return said if front == "1" else f"{front}·({said})"


def _term(value: Fraction, powers: Sequence[int], names: Sequence[str]) -> str:
    parts = [name + {1: "", 2: "²", 3: "³"}[power] for name, power in zip(names, powers, strict=True) if power]
    if value != 1 or not parts:
        short = f"{float(value):,.6g}"
        parts.insert(0, short if Fraction(short.replace(",", "")) == value else str(value))
    return "·".join(parts)


def flat(shape: Shape, sizing: Sequence[int]) -> tuple[int, ...]:
    """A point or its powers, as one row: layers, heads, width, feed-forward width, sizes."""
    layers, heads, widths = shape
    return (layers, heads, *widths, *sizing)


def _power(numbers: Sequence[int], powers: Sequence[int]) -> int:
    return math.prod(number**power for number, power in zip(numbers, powers, strict=True))


def _value(found: Polynomial, numbers: Sequence[int]) -> Fraction:
    return sum((value * _power(numbers, powers) for powers, value in found.items()), Fraction())


@cache
def _sites(shape: Shape, expression: str) -> tuple[Site, ...]:
    model, anatomy = _decoder(shape)
    selection = select(anatomy, expression)
    if selection.missing:
        raise NotImplementedError
    return tuple(site.bind(model) for site in selection.sites)


@cache
def _decoder(shape: Shape) -> tuple:
    from transformers import LlamaConfig

    layers, heads, (width, inner) = shape
    config = LlamaConfig(
        vocab_size=32000, hidden_size=UNIT * width, intermediate_size=UNIT * inner, num_hidden_layers=layers,
        num_attention_heads=HEADS * heads, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = skeleton(config)
    return model, examine(model)
