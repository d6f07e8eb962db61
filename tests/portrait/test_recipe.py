"""The one line that tries a method: it is there for all that can be trained alone, and it runs."""

import json
import shlex
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import cases
import graft
import small
from graft import bases, catalogue, cli
from graft.method import find, named
from graft.portrait.recipe import recipe

ROWS = Path(__file__).parents[2] / "recipes/rows/reviews.jsonl"


def test_the_base_is_one_that_takes_the_method() -> None:
    assert recipe(graft.LoRA()) == "graft tune --model sprout --data reviews.jsonl --method lora"
    assert recipe(graft.IDPT()) == "graft tune --model google-bert/bert-base-uncased --data reviews.jsonl --method idpt"
    assert recipe(named("lora+prefix_tuning")).endswith("--method lora+prefix_tuning")
    assert recipe(graft.CompacterPlusPlus()).endswith("--method compacter_plus_plus")  # not its terms


def test_what_is_made_of_others_names_them() -> None:
    line = "graft tune --model sprout --data reviews.jsonl --method adapter_fusion"
    assert recipe(graft.AdapterFusion()) == f"{line} --upon runs/one/adapter runs/two/adapter"
    assert recipe(graft.AdapterFusion(hosts=("lora(rank=2)", "lora"))) == line
    assert recipe(graft.PlugIn()).startswith("graft plug ")


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue.own())
def test_the_line_of_every_method_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = small.lines(ROWS)
    mixed = [{"prompt": row["text"], "completion": row["label"], "task": "opinion"} for row in rows]
    for file, lines in (("reviews", rows), ("mixed", mixed)):
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "texts.txt").write_text("\n\n".join(row["text"] for row in rows))
    for place in ("one", "two", "small"):
        model = AutoModelForCausalLM.from_pretrained(bases.path("sprout"))
        cases.move(graft.attach(model, graft.LoRA(), place))
        graft.save(model, place, tmp_path / "runs" / place / "adapter")
    line = recipe(find(name)()).replace("LARGE", "sprout --small sprout")
    line = line.replace("google-bert/bert-base-uncased", str(small.base(tmp_path, "bert")))
    short = ["--steps", "2", "--batch", "2", "--folder", "made"] if "tune" in line else ["--rows", "8"]
    assert cli.main([*shlex.split(line)[1:], *short]) == 0
    assert [*tmp_path.glob("made/**/adapter.safetensors"), *tmp_path.glob("plugged/adapter.safetensors")]
