"""Numbers as a person reads them: scores, counts, sizes, times; settings and verdicts in words."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

MINUS = "−"
NOTHING = "–"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int) -> str:
    """A number with that many decimals, or a dash."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return signed_zero(f"{value:,.{digits}f}").replace("-", MINUS)


def signed_zero(text: str) -> str:
    """No minus in front of what is rounded to zero."""
    return text.lstrip("-") if not any(each in text for each in "123456789") else text


def digits(unit: str) -> int:
    """Decimals of a score: one for percent, else three."""
    return 1 if unit == "%" else 3


def interval(found: Mapping[str, Any] | None, places: int) -> str:
    """`90.1 to 94.5`, or why there is none."""
    if found is None or found.get("value") is None:
        return (found or {}).get("reason") or NOTHING
    if found.get("low") is None or found.get("high") is None:
        return found.get("reason") or "no interval"
    return f"{number(found['low'], places)} to {number(found['high'], places)}"


def short(value: float, places: int = 3) -> str:
    """A number with about three significant digits, without an exponent where it can be read without one."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NOTHING
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    if abs(value) < 1e-4:
        return f"{value:.2g}".replace("-", MINUS)
    after = max(0, places - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{after}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)


def prefixed(value: float, unit: str) -> str:
    """`1.05 MB`: three digits with a decimal prefix."""
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{short(value / size)} {prefix}{unit}".strip()
    return f"{short(value)} {unit}".strip()


def seconds(value: float) -> str:
    """`3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if value < 99.5:
        return f"{short(value)} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def span(low: str, high: str) -> str:
    """`0.7 to 1.03 s` from two amounts in words, the unit once; empty when they read the same."""
    if low == high:
        return ""
    start, _, unit = low.rpartition(" ")
    return f"{start if start and unit == high.rpartition(' ')[2] else low} to {high}"


def settings(chosen: Mapping[str, Any] | None) -> str:
    """`lr 0.003, rank 8`."""
    return ", ".join(f"{name} {plain(each)}" for name, each in (chosen or {}).items() if each is not None)


def searched(space: Mapping[str, Sequence[Any]] | None) -> str:
    """`lr 0.001 or 0.003; rank 4 or 8`."""
    return "; ".join(f"{name} {' or '.join(map(plain, values))}" for name, values in (space or {}).items())


def plain(each: Any) -> str:
    """One setting's value: text as it is, numbers short, the rest as JSON."""
    if isinstance(each, str):
        return each
    if isinstance(each, float):
        return f"{each:g}"
    if isinstance(each, list | tuple):
        return " ".join(plain(one) for one in each)
    return json.dumps(each, ensure_ascii=False)


def cut(text: str, most: int) -> str:
    """Text of at most that many characters, saying how many were left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"
