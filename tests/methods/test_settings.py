"""Hyperparameters of the wrong type, and words that no method knows, are refused by every method alike."""

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

import pytest

import zoo
from graft import catalogue
from graft.attach import attach
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


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ladder_side", {"drop": 4}), ("ladder_side", {"drop": "abc"}), ("adalora", {"total_steps": True}),
        ("meft", {"variant": True}), ("meft", {"variant": 2.0}), ("random_mask", {"density": 1}),
        ("lora", {"sites": ""}), ("houlsby", {"sites": " "}), ("hypertuning", {"sites": ""}),
        ("hypertuning", {"sites": " "}), ("ia3", {"sites": " "}), ("parallel", {"hosts": 7}),
        ("parallel", {"adapters": "abc"}), ("plug_in", {"plugs": ("q",)}), ("propetl", {"tasks": (1, 2)}),
        ("vera", {"seed": 2**32}), ("fourier_ft", {"seed": -1}), ("random_mask", {"seed": 2**70}),
        ("lora", {"alpha": 1e308}), ("houlsby", {"std": 1e30}), ("pfeiffer", {"bottleneck": 2**31}),
        ("parallel_adapter", {"scale": -(2**70)}), ("lora", {"alpha": 10**400}),
        ("side_tuning", {"layers": 129}), ("oft", {"terms": 65}), ("pissa", {"iterations": 65}),
    ],
)  # fmt: skip
def test_values_that_look_right_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"{next(iter(settings))} must"):
        find(name)(**settings)


def test_a_whole_number_is_a_number() -> None:
    attach(zoo.tiny("llama"), find("vera")(rank=2, d_initial=1))
