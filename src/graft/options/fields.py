"""The options of a verb or method, read from its dataclass: `rank: Annotated[int, "width of the update"] = 8`."""

import dataclasses
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from graft.errors import BadInput


@dataclass(frozen=True)
class Field:
    """One option: its name, type, help and default (`dataclasses.MISSING` when it must be given)."""

    name: str
    type: Any
    help: str
    default: Any

    @property
    def required(self) -> bool:
        """Whether the user must give it."""
        return self.default is dataclasses.MISSING


def fields_of(cls: type) -> list[Field]:
    """Read the options of a dataclass, in order. Raises TypeError for a field without help."""
    # A verb that takes a method names its class only for the type checker; on the command line it is a string.
    hints = get_type_hints(cls, localns={"Method": str}, include_extras=True)
    return [_read(cls, field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def _read(cls: type, field: dataclasses.Field, hint: Any) -> Field:
    texts = [text for text in get_args(hint)[1:] if isinstance(text, str)] if get_origin(hint) is Annotated else []
    if not texts:
        raise TypeError(f'{cls.__module__}.{cls.__qualname__}.{field.name} has no help: write Annotated[type, "help"]')
    made = field.default_factory
    return Field(field.name, get_args(hint)[0], texts[0], field.default if made is dataclasses.MISSING else made())


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def is_mapping(kind: Any) -> bool:
    """Whether an option of this type holds named values."""
    return any(get_origin(each) is dict for each in _alternatives(kind))


def is_list(kind: Any) -> bool:
    """Whether an option of this type holds several values."""
    return any(get_origin(each) in (tuple, list) for each in _alternatives(kind))


def fits(value: str | tuple[str, ...] | None, kind: Any, inside: bool) -> bool:
    """Whether a value of a recipe has the shape of a type; `inside` is a value of one key of a mapping option."""
    if value is None:
        return type(None) in _alternatives(kind)
    return is_list(kind) if isinstance(value, tuple) else is_mapping(kind) == inside


def scalars(kind: Any) -> set[Any]:
    """The plain types inside a type: `tuple[int, ...] | None` has int and NoneType."""
    if get_origin(kind) in (Annotated, tuple, list, dict, Union, types.UnionType):
        return {scalar for each in get_args(kind) for scalar in scalars(each)}
    return {kind}


def type_name(kind: Any) -> str:
    """Say a type as a user reads it: `int`, `float or none`, `one of bf16, fp32`, `several str`."""
    if len(parts := _alternatives(kind)) > 1:
        return " or ".join(type_name(each) for each in parts)
    if get_origin(kind) is Literal:
        values = [str(value) for value in get_args(kind)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if get_origin(kind) in (tuple, list):
        return f"several {type_name(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"name: {type_name(get_args(kind)[1])}"
    return {type(None): "none", Path: "path", Any: "any value"}.get(kind) or kind.__name__


def converted(field: Field, value: Any) -> Any:
    """A value given in Python as the field's type has it: a path may be text, several values any sequence.

    Raises BadInput for a value of another type. Fields that take text are left to their verb: some take objects too.
    """
    kinds = _alternatives(field.type)
    if str in kinds or is_mapping(field.type) or (value is None and type(None) in kinds):
        return value
    if Path in kinds and isinstance(value, (str, Path)):
        return Path(value)
    if is_list(field.type) and isinstance(value, (list, tuple)):
        return tuple(value)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if (isinstance(value, str) and value in words) or type(value) in kinds or (float in kinds and number):
        return value
    raise BadInput(f"{field.name}: expected {type_name(field.type)}, got {value!r:.80}.")
