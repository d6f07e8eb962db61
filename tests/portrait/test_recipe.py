"""The one line that tries a method: it is there for all that can be trained alone, and it runs."""

import shlex
from pathlib import Path

import pytest

import graft
import small
from graft import catalogue, cli
from graft.method import find, named
from graft.portrait.recipe import recipe

ROWS = Path(__file__).parents[2] / "recipes/rows/reviews.jsonl"


def test_the_base_is_one_that_takes_the_method() -> None:
    assert recipe(graft.LoRA()) == "graft tune --model sprout --data reviews.jsonl --method lora"
    assert recipe(graft.IDPT()) == "graft tune --model google-bert/bert-base-uncased --data reviews.jsonl --method idpt"
    assert recipe(named("lora+prefix_tuning")).endswith("--method lora+prefix_tuning")
    assert recipe(graft.AdapterFusion()) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue.own())
def test_the_line_of_every_method_runs(name: str, tmp_path: Path) -> None:
    line = recipe(find(name)())
    if not line:
        pytest.skip("not trained alone")
    base = "sprout" if "sprout" in line else str(small.base(tmp_path, "bert"))
    line = line.replace("reviews.jsonl", str(ROWS)).replace("google-bert/bert-base-uncased", base)
    extra = ["--steps", "2", "--batch", "2", "--folder", str(tmp_path / "run")]
    assert cli.main([*shlex.split(line)[1:], *extra]) == 0
    assert list((tmp_path / "run").glob("**/adapter.safetensors"))
