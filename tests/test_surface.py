"""What `import graft` gives: verbs as functions, methods by their names."""

import subprocess
import sys
from typing import Any, Literal

import pytest

import graft
from graft import catalogue, verbs
from graft.errors import BadInput


def test_every_verb_is_a_function_that_stays_one() -> None:
    for name in set(catalogue.verbs()) - {"methods"}:
        function = getattr(graft, name)
        verbs.module(name)
        assert getattr(graft, name) is function and callable(function)
        assert set(function.__signature__.parameters) == set(verbs.module(name).Options.__dataclass_fields__)
    with pytest.raises(BadInput, match=r"no option foldr \(nearest: folder\)"):
        graft.doctor(foldr=".")


def test_packages_do_not_cover_the_functions_of_their_names() -> None:
    code = "import graft, graft.attach.attach, graft.anatomy; from graft.attach import detach\n"
    code += "print(callable(graft.attach), callable(graft.anatomy), graft.detach is detach, graft.methods.__name__)\n"
    # And modules are reached without importing them.
    code += "print(graft.method.named('lora').slug(), graft.checkpoint.save_base.__name__)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert seen.stdout.split() == ["True", "True", "True", "graft.methods", "lora", "save_base"], seen.stderr


def test_methods_are_reached_by_their_names() -> None:
    assert {"LoRA", "IA3", "PrefixTuning"} <= set(dir(graft))
    assert graft.LoRA is graft.methods.lora.LoRA and issubclass(graft.LoRA, graft.Method)
    with pytest.raises(AttributeError, match="no attribute 'Lora'"):
        graft.Lora  # noqa: B018


def test_literal_choices_are_said_in_full() -> None:
    from graft.options.fields import type_name

    assert type_name(int | Literal["all"]) == "int or all"
    assert type_name(tuple[float, ...] | None) == "several float or none"
    assert type_name(dict[str, Any]) == "name: any value"
