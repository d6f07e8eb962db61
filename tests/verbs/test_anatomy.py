"""`graft anatomy`: tree, sites and counts from the configuration alone."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import zoo
from graft.cli import main
from graft.errors import BadInput
from graft.verbs.anatomy import Options, Result, run


def folder(tmp_path: Path, name: str) -> str:
    zoo.config(name).save_pretrained(tmp_path)
    return str(tmp_path)


def shown(result: Result) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    result.show(console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_all_sites_of_a_model_with_their_counts(tmp_path: Path) -> None:
    result = run(Options(folder(tmp_path, "gpt2")))
    groups = {group.role: group for group in result.groups}
    assert [
        (groups[role].shape, groups[role].count, groups[role].parameters) for role in ("q", "up", "embed", "norm")
    ] == [
        ("32 × 32", 2, 1024),
        ("48 × 32", 2, 1536),
        ("32 × 96", 1, 3072),
        ("32", 5, 32),
    ]
    assert result.parameters == sum(p.numel() for p in zoo.tiny("gpt2").parameters())
    assert result.head == ["lm_head"] and result.tied == [["transformer.wte.weight", "lm_head.weight"]]
    lines = shown(result)
    assert "      0-1 ×2: GPT2Block  ← layer" in lines
    assert "          c_attn: Conv1D (weight 32×96, bias 96)  ← q, k, v" in lines
    assert any(line.split() == ["q", "decoder", "0-1", "32", "×", "32", "2", "2,048"] for line in lines)


def test_an_expression_marks_what_it_reaches(tmp_path: Path) -> None:
    result = run(Options(folder(tmp_path, "t5"), "cross: k; encoder: ffn @ 1"))
    assert result.exit_code == 0
    assert result.names == ["encoder.1.ffn", "decoder.0.cross.k", "decoder.1.cross.k"]
    assert [(group.role, group.layers, group.cross) for group in result.groups] == [
        ("ffn", "1", False),
        ("k", "0-1", True),
    ]
    lines = shown(result)
    assert sum("← cross k" in line for line in lines) == 2
    assert any("reaches 3 sites" in line for line in lines)


def test_experts_count_all_of_them(tmp_path: Path) -> None:
    result = run(Options(folder(tmp_path, "mixtral"), "down"))
    (group,) = result.groups
    assert (group.shape, group.count, group.parameters) == ("4 × 32 × 48", 2, 4 * 32 * 48)


def test_a_role_that_layers_lack_is_shown_and_exits_with_1(tmp_path: Path) -> None:
    settings = zoo.config("qwen3_moe", mlp_only_layers=[0])
    settings.save_pretrained(tmp_path)
    result = run(Options(str(tmp_path), "experts"))
    assert result.exit_code == 1 and result.names == ["decoder.1.experts"]
    assert any("missing in 0" in line for line in shown(result))


def test_the_command_prints_json_and_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anatomy", folder(tmp_path, "llama"), "--sites", "q @ top 1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["names"] == ["decoder.1.q"] and printed["stacks"][0]["causal"] is True
    assert main(["anatomy", str(tmp_path), "--sites", "p"]) == 2
    assert "unknown word 'p'" in capsys.readouterr().err


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no config\.json"):
        run(Options(str(tmp_path)))


def test_a_name_that_is_almost_a_bundled_base() -> None:
    with pytest.raises(BadInput, match="Did you mean the bundled base sprout"):
        run(Options("sprot"))
