"""What the values of hyperparameters may be, and how one that may not is refused."""

import difflib
import math
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from graft.errors import BadInput
from graft.limits import LARGEST, SEEDS


class Rule(NamedTuple):
    """What an annotation allows: in words, of one value and of several, and as a test."""

    one: str
    several: str
    fits: Callable[[Any], bool]


PLAIN: dict[Any, Rule] = {
    bool: Rule("True or False", "True and False", lambda value: isinstance(value, bool)),
    int: Rule("a whole number", "whole numbers", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: Rule("a number", "numbers", lambda value: type(value) in (int, float) and abs(value) < math.inf),
    str: Rule("text", "text", lambda value: isinstance(value, str)),
    NoneType: Rule("None", "None", lambda value: value is None),
}


def allowed(method: Any, name: str, kind: Any, default: Any) -> None:
    """Refuse a hyperparameter whose value is not of its annotated type, not one of its words, or out of range."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    words = [word for each in kinds if get_origin(each) is Literal for word in get_args(each)]
    rules = [found for each in kinds if (found := rule(each)) is not None]
    value = getattr(method, name)
    if not words and len(rules) < len(kinds):
        return  # something richer, which the method checks itself
    of_words = any(value == word and type(value) is type(word) for word in words)
    usual = f"The default is {default!r}."
    if not of_words and not any(each.fits(value) for each in rules):
        said = " or ".join([*(each.one for each in rules), *(repr(word) for word in words)])
        near = difflib.get_close_matches(str(value), map(str, words), n=1)
        written = "Write (first, second). " if isinstance(default, tuple) else ""
        check(False, method, name, f"must be {said}", f"Did you mean {near[0]!r}?" if near else written + usual)
    blank = name == "sites" and value != default and not str(value).strip()
    check(not blank, method, name, "must name places of a model", usual)
    least, end = (0, SEEDS) if name == "seed" else (1 - LARGEST, LARGEST)
    bounds = "at least 0 and below 2^32" if name == "seed" else "above -2^31 and below 2^31"
    check(all(least <= each < end for each in _numbers(value)), method, name, f"must be {bounds}", usual)


def rule(kind: Any) -> Rule | None:
    """What an annotation allows, where it is a plain one or a tuple of such."""
    if get_origin(kind) is tuple and get_args(kind)[1:] == (...,) and (inner := rule(get_args(kind)[0])) is not None:
        fits, of = inner.fits, f"of {inner.several}"
        return Rule(f"a tuple {of}", f"tuples {of}", lambda value: isinstance(value, tuple) and all(map(fits, value)))
    return PLAIN.get(kind)


def _numbers(value: Any) -> Iterator[float]:
    """The numbers that a value is made of."""
    if isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


def positive(method: Any, *names: str) -> None:
    """Refuse hyperparameters that must be whole numbers of at least 1, or None where their type allows it."""
    for name in names:
        value = getattr(method, name)
        usual = getattr(type(method), name, None) or 8
        fits = value is None or (isinstance(value, int) and value >= 1)
        check(fits, method, name, "must be at least 1", f"Try {usual}.")


def reduced(method: Any, width: int, least: int = 1) -> int:
    """The bottleneck that is `method.reduction` times narrower than a width. Refuses one narrower than a number."""
    if width < method.reduction:
        raise BadInput(
            f"{type(method).__name__}: reduction {method.reduction} leaves no bottleneck in a width of {width}. "
            f"Choose at most {width // least}."
        )
    return width // method.reduction


def check(condition: bool, method: Any, name: str, rule: str, remedy: str) -> None:
    """Refuse an impossible hyperparameter: what was wrong, what was seen, what to do."""
    if not condition:
        seen = getattr(method, name)
        raise BadInput(f"{type(method).__name__}: {name} {rule}, got {seen!r}. {remedy}")
