"""`TrainingOptions`: numbers that no run can be made of are refused by name."""

import math

import pytest

from graft.errors import BadInput
from graft.training import TrainingOptions


@pytest.mark.parametrize("name", ["epochs", "seconds", "lr", "clip", "weight_decay", "warmup"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_are_finite(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"^{name} must be a finite number, got {value}"):
        TrainingOptions(**{name: value})


@pytest.mark.parametrize("seed", [-1, 10**22])
def test_seeds_fit_every_generator(seed: int) -> None:
    with pytest.raises(BadInput, match="seed must"):
        TrainingOptions(seed=seed)
