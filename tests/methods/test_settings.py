"""Hyperparameters of the wrong type, and words that no method knows, are refused by every method alike."""

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

import pytest

from graft import catalogue
from graft.errors import BadInput
from graft.method import describe, find, restore
from graft.methods.houlsby import Houlsby
from graft.methods.lora import LoRA
from graft.methods.top_layers import TopLayers

WRONG: dict[Any, list[Any]] = {
    int: [True, 2.5, "8", None],
    float: [True, "1", math.nan, math.inf, None],
    bool: [1, "yes", None],
    str: [3, None],
}


def cases() -> list[tuple[str, str, Any]]:
    """(method, hyperparameter, a value its annotation does not allow)."""
    found = []
    for name in catalogue.methods():
        for f in fields(find(name)):
            kind = get_args(f.type)[0]
            wrong = ["nonsense", -3, None] if get_origin(kind) is Literal else WRONG.get(kind, [])
            found += [(name, f.name, value) for value in wrong]
    return found


@pytest.mark.parametrize(("name", "field", "value"), cases())
def test_every_hyperparameter_of_every_method(name: str, field: str, value: Any) -> None:
    with pytest.raises(BadInput, match=rf"{find(name).__name__}: {field} must be .*got "):
        find(name)(**{field: value})


def test_a_near_word_is_suggested() -> None:
    with pytest.raises(BadInput, match=r"activation must be 'relu' or .*, got 'rulu'\. Did you mean 'relu'\?"):
        Houlsby(activation="rulu")
    with pytest.raises(BadInput, match=r"k must be a whole number or 'all', got 'al'\. Did you mean 'all'\?"):
        TopLayers("al")
    with pytest.raises(BadInput, match=r"rank must be a whole number, got '8'\. The default is 8\."):
        LoRA(rank="8")


def test_whole_numbers_pass_for_numbers_and_defaults_for_themselves() -> None:
    assert LoRA(alpha=16) == LoRA(alpha=16.0)
    for name in catalogue.methods():
        assert restore(describe(find(name)())) == find(name)()


def test_no_deviation_is_refused() -> None:
    with pytest.raises(BadInput, match=r"Houlsby: std must be above 0"):
        Houlsby(std=0.0)
