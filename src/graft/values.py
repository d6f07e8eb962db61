"""What the values of hyperparameters may be, and how one that may not is refused."""

import difflib
import math
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from graft.errors import BadInput

# What a plain annotation allows: in words, and as a test.
PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda value: type(value) in (int, float) and math.isfinite(value)),
    str: ("text", lambda value: isinstance(value, str)),
    NoneType: ("None", lambda value: value is None),
}


def allowed(method: Any, name: str, kind: Any, default: Any) -> None:
    """Refuse a hyperparameter whose value is not of its annotated type, or not one of its words."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    words = [word for each in kinds if get_origin(each) is Literal for word in get_args(each)]
    plain = {each: PLAIN[each] for each in kinds if each in PLAIN}
    value = getattr(method, name)
    if not words and len(plain) < len(kinds):
        return  # something richer, which the method checks itself
    of_words = any(value == word and type(value) is type(word) for word in words)
    if of_words or any(fits(value) for _, fits in plain.values()):
        empty = name == "sites" and default and not str(value).strip()
        check(not empty, method, name, "must name places of a model", f"The default is {default!r}.")
        return
    said = " or ".join([*(text for text, _ in plain.values()), *(repr(word) for word in words)])
    near = difflib.get_close_matches(str(value), map(str, words), n=1)
    check(
        False, method, name, f"must be {said}", f"Did you mean {near[0]!r}?" if near else f"The default is {default!r}."
    )


def positive(method: Any, *names: str) -> None:
    """Refuse hyperparameters that must be whole numbers of at least 1, or None where their type allows it."""
    for name in names:
        value = getattr(method, name)
        check(value is None or (isinstance(value, int) and value >= 1), method, name, "must be at least 1", "Try 8.")


def check(condition: bool, method: Any, name: str, rule: str, remedy: str) -> None:
    """Refuse an impossible hyperparameter: what was wrong, what was seen, what to do."""
    if not condition:
        seen = getattr(method, name)
        raise BadInput(f"{type(method).__name__}: {name} {rule}, got {seen!r}. {remedy}")
