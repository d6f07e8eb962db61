"""The Jinja environment that templates run in: no way out to Python, no large strings, a short list of filters."""

import json
import re
from collections.abc import Iterable
from typing import Any

from jinja2 import StrictUndefined
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

LARGEST = 1_000_000
KEPT = (
    "abs", "capitalize", "count", "default", "d", "dictsort", "escape", "e", "first", "float", "int", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr",
    "sort", "string", "striptags", "sum", "title", "trim", "unique", "upper", "wordcount",
)  # fmt: skip
TEXT_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal", "isdigit",
    "islower", "isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
    "replace", "rfind", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
    "title", "upper",
})  # fmt: skip


class TooMuch(Exception):
    """A template asks for more time or text than it may have."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, with operations that could make huge strings bounded or left out."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
        self.filters = {name: FILTERS[name] for name in KEPT} | {"replace": _replace, "join": _join, "tojson": _tojson}
        # `namespace`, `cycler` and `joiner` hold state across iterations, `lipsum` makes text, `dict` is not needed.
        self.globals = {"range": self.globals["range"]}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse arithmetic whose result would be huge."""
        if operator == "%" and isinstance(left, str) and re.search(r"\d{4}|\*", left):
            raise TooMuch("a format with a wide field")
        if operator == "**" and (abs(right) > 64 or abs(left) > 1e6):
            raise TooMuch("a large power")
        if operator == "*" and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            times, of = (left, right) if isinstance(left, int) else (right, left)
            _bound(times * len(of))
        if operator == "+" and not isinstance(left, (int, float)):
            _bound(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of a string's methods only those whose result is no longer than their arguments say."""
        if isinstance(obj, str) and attr not in TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Bound `replace` and `join` when called as methods of a string."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            _bound_replace(owner, *args, **kwargs)
        if isinstance(owner, str) and name == "join":
            args = (_bound_join(owner, *args),)
        return super().call(context, function, *args, **kwargs)


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    _bound_replace(str(text), old, new)
    return str(text).replace(old, new, -1 if count is None else count)


def _join(value: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
    parts = list(value) if attribute is None else [part[attribute] for part in value]
    return str(separator).join(map(str, _bound_join(str(separator), parts)))


def _tojson(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _bound_replace(text: str, old: str, new: str, *_: Any) -> None:
    _bound(len(text) + (len(new) - len(old)) * text.count(old))


def _bound_join(separator: str, parts: Iterable[Any]) -> list[Any]:
    parts = list(parts)
    _bound(sum(len(str(part)) for part in parts) + len(separator) * len(parts))
    return parts


def _bound(length: int) -> None:
    if length > LARGEST:
        raise TooMuch(f"a text or list of {length:,} elements; the limit is {LARGEST:,}")
