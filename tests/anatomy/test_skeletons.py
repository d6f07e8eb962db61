"""Models from configurations alone, and what is said where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

import zoo
from graft.anatomy import examine, skeleton
from graft.errors import BadInput, Refused


def write(folder: Path, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def test_a_folder_a_file_and_a_configuration_are_the_same_model(tmp_path: Path) -> None:
    settings = zoo.config("t5")
    settings.save_pretrained(tmp_path)
    wanted = examine(skeleton(settings))
    assert examine(skeleton(tmp_path)) == examine(skeleton(str(tmp_path / "config.json"))) == wanted


def test_a_large_model_takes_no_memory() -> None:
    settings = LlamaConfig(
        hidden_size=8192, num_hidden_layers=80, intermediate_size=28672, num_attention_heads=64, num_key_value_heads=8,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = skeleton(settings)
    width, inner, words = 8192, 28672, 32000
    layer = 2 * width * width + 2 * width * 1024 + 3 * width * inner + 2 * width
    assert sum(p.numel() for p in model.parameters()) == 80 * layer + 2 * words * width + width
    assert all(p.device == torch.device("meta") for p in model.parameters())
    assert len(examine(model).stacks[0].layers) == 80


def test_without_architectures_the_bare_model_is_meant() -> None:
    settings = zoo.config("bert")
    settings.architectures = None
    assert type(skeleton(settings)).__name__ == "BertModel"


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLm"]}, BadInput, "Did you mean LlamaForCausalLM"),
        ({"model_type": "llama", "architectures": ["BertModel"]}, BadInput, "not made from a LlamaConfig"),
        ({"model_type": "llama", "architectures": ["PreTrainedTokenizerFast"]}, BadInput, "does not have"),
        ({"model_type": "nosuch"}, BadInput, "no usable configuration"),
        ({"model_type": "own", "auto_map": {"AutoModel": "m.M"}}, Refused, "code of its own"),
    ],
)
def test_configurations_that_cannot_be_used(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        skeleton(write(tmp_path / "model", **fields))


def test_places_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(BadInput, match=r"no config.json in this folder \(it holds notes.txt\)"):
        skeleton(tmp_path)
    with pytest.raises(BadInput, match=r"a \.txt file"):
        skeleton(tmp_path / "notes.txt")
    with pytest.raises(BadInput, match="no such folder or file"):
        skeleton(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="no usable configuration"):
        skeleton(tmp_path)
    with pytest.raises(BadInput, match="no usable configuration"):
        skeleton("nobody/no-such-model")
