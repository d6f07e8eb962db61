"""Reading records: what a metric needs from each, with every unusable record named in one error."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

from graft.errors import BadInput
from graft.metrics._metric import Record

T = TypeVar("T")
SHOWN = 5


def read(metric: str, records: Sequence[Record], key: str, parse: Callable[[Any], T]) -> list[T]:
    """`parse(record[key])` of every record; `parse` says what is wrong by a ValueError.

    Raises BadInput that names the metric, the key and the first offending items, and counts the rest.
    """
    values: list[T] = []
    problems: list[str] = []
    for row, record in enumerate(records):
        where = f"item {record.get('item', row)}"
        if key not in record:
            problems.append(f"{where}: no {key!r}")
            continue
        try:
            values.append(parse(record[key]))
        except ValueError as error:
            problems.append(f"{where}: {key} {error}")
    complain(metric, problems)
    return values


def complain(metric: str, problems: Sequence[str]) -> None:
    """Raise BadInput with the first problems and the count of all, if there are any."""
    if problems:
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        raise BadInput(f"{metric} cannot score these records: {'; '.join(problems[:SHOWN])}{more}.")


def label(value: Any) -> str | int:
    """A class label: a string or a whole number (booleans and numpy integers are their int)."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return int(value)
    raise ValueError(f"must be one label, a string or a whole number, got {_shown(value)}")


def label_or_none(value: Any) -> str | int | None:
    """A predicted label, or None for an output that is no label at all (an answer that could not be read)."""
    return None if value is None else label(value)


def number(value: Any) -> float:
    """A number as float; NaN and infinity pass, and make the score undefined."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"must be a number, got {_shown(value)}")


def count(value: Any) -> float:
    """A whole number, zero or more."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0:
        return float(value)
    raise ValueError(f"must be a whole number of at least 0, got {_shown(value)}")


def text(value: Any) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    raise ValueError(f"must be a text, got {_shown(value)}")


def texts(value: Any) -> list[str]:
    """One reference or several: a string or a list of at least one string."""
    found = list(_strings(value))
    if not found:
        raise ValueError("must hold at least one text, got an empty list")
    return found


def answers(value: Any) -> list[str]:
    """Accepted answers: a string or a list; an empty list means that the right answer is to give none."""
    return list(_strings(value)) or [""]


def tags(value: Any) -> list[str]:
    """A list of tags, one per token."""
    if isinstance(value, str):
        raise ValueError(f"must be a list of tags, got {_shown(value)}")
    return list(_strings(value))


def probabilities(value: Any) -> list[float]:
    """Probabilities of all classes, in 0 to 1, summing to 1 within 0.01. NaN passes, and makes the score undefined."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError(f"must be a list of numbers, got {_shown(value)}")
    found = [number(entry) for entry in value]
    if not found:
        raise ValueError("must hold at least one number, got an empty list")
    if any(math.isnan(entry) for entry in found):
        return [math.nan]
    if min(found) < 0 or max(found) > 1 or abs(sum(found) - 1) > 0.01:
        raise ValueError(f"must lie between 0 and 1 and sum to 1, got {_shown(value)}. Are these logits? Apply softmax")
    return found


def _strings(value: Any) -> Iterator[str]:
    # A list that comes back from a file may be an array or a tuple; a mapping would give its keys.
    several = isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping))
    found = [value] if isinstance(value, str) else list(value) if several else [value]
    if not all(isinstance(entry, str) for entry in found):
        raise ValueError(f"must be a text or a list of texts, got {_shown(value)}")
    yield from found


def _shown(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"
