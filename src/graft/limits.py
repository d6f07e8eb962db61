"""What numbers options and hyperparameters take: checked before any work, every offender in one error."""

import math
from collections.abc import Mapping
from typing import Any

from graft.errors import BadInput

SEEDS = 2**32  # what NumPy's generator takes
LARGEST = 2**31  # of a hyperparameter, either sign: what is larger overflows somewhere, in products or as a size


def check_numbers(options: Any, lowest: Mapping[str, float], above: tuple[str, ...] = ()) -> None:
    """Check the fields of `options` that are named: finite, at least `lowest`, or above 0 where named in `above`.

    None passes. A field called `seed` is also below 2^32. Raises BadInput that names every option at fault.
    """
    wrong = [problem for name in (*lowest, *above) if (problem := _problem(options, name, lowest.get(name)))]
    if wrong:
        raise BadInput("; ".join(wrong) + ".")


def finite(value: Any) -> bool:
    """Whether a value is no NaN and no infinity; what is no number passes."""
    return not isinstance(value, float) or math.isfinite(value)


def _problem(options: Any, name: str, lowest: float | None) -> str | None:
    value = getattr(options, name)
    if value is None:
        return None
    if not finite(value):
        return f"{name} must be a finite number, got {value}"
    if lowest is None:
        return f"{name} must be above 0, got {value}" if value <= 0 else None
    if value < lowest:
        return f"{name} must be at least {lowest:g}, got {value}"
    return f"{name} must be below 2^32, got {value}" if name == "seed" and value >= SEEDS else None
