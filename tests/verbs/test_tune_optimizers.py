"""`graft tune --optimizer`: what the command line makes of it, and of options that do not go with it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from graft import cli


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": "mezo", "perturbation": 0.1, "objective": "accuracy", "lr": 0.1, "schedule": "constant"},
        {"optimizer": "lora+", "lr": 0.01},
    ],
)
def test_an_optimizer_trains_and_is_in_the_recipe(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict[str, Any]
) -> None:
    rest = {"steps": 12, "batch": 8, "checks": 2, "length": 32, "dtype": "fp32", "folder": tmp_path / "run"}
    options = [word for name, value in {**given, **rest}.items() for word in (f"--{name}", str(value))]
    assert cli.main(["tune", str(home / "bert"), str(home / "classes"), *options]) == 0
    assert re.search(r"training +12 steps", capsys.readouterr().out)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text()).items() >= given.items()
    assert (tmp_path / "run" / "adapter" / "adapter.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method lora --objective accuracy", "perturbation and objective are for the optimizer mezo"),
        ("--method lora --optimizer lora+ --perturbation 0.1", "perturbation and objective are for the optimizer mezo"),
        ("--method bitfit --optimizer lora+", "bitfit has none"),
        ("--method lora --optimizer mezo --objective acuracy", "accuracy"),
        ("--method lora --optimizer mezoo", 'Did you mean "mezo"?'),
        ("--method=", 'there is no method ""'),
    ],
)
def test_what_does_not_go_together_is_bad_input(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    folder = str(tmp_path / "run")
    assert cli.main(["tune", str(home / "bert"), str(home / "classes"), *words.split(), "--folder", folder]) == 2
    found = capsys.readouterr()
    assert said in found.err.splitlines()[-1] and not found.out and not (tmp_path / "run" / "adapter").exists()
