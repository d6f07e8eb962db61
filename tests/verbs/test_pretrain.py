"""`graft pretrain` from the command line: a recipe, options over it, what is printed."""

import json
from pathlib import Path

import pytest

from graft import cli

RECIPE = """
text: [{text}]
output: {output}
config: gpt2
fields: {{n_embd: 32, n_layer: 1, n_head: 2, n_positions: 32}}
vocabulary: 270
length: 32
batch: 4
accumulate: 1
held_out: 0.2
tokens: 256
threads: 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for number in range(30):
        words = [f"word{(number * k) % 23} of{k % 7}" for k in range(60)]
        (tmp_path / "text" / f"{number}.md").write_text(" ".join(words))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(text=tmp_path / "text", output=tmp_path / "out"))
    return path


def test_a_recipe_trains_and_prints_json(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", str(recipe), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["seen_tokens"] == 256 and said["steps"] == 2 and said["loss"] > 0
    assert (Path(said["model"]) / "model.safetensors").is_file()
    assert json.loads((Path(said["model"]) / "config.json").read_text())["n_embd"] == 32


def test_the_command_line_wins_and_people_read_lines(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", str(recipe), "--dry-run", "--vocabulary", "268"]) == 0
    lines = dict(line.split("  ", 1) for line in map(str.strip, capsys.readouterr().out.splitlines()) if line)
    assert lines["model type"] == "gpt2" and lines["vocabulary"] == "268"
    assert int(lines["parameters"].replace(",", "")) == 32 * (268 + 32) + 12 * 32 * 32 + 13 * 32 + 2 * 32
    assert "loss" not in lines


def test_wrong_input_is_told_with_exit_code_2(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", str(recipe), "--length", "99"]) == 2
    assert "length 99 is more than the model's 32 positions" in capsys.readouterr().err
