"""Whether a base is the one an adapter was made for, and how it differs if not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.checkpoint import Fingerprint, fingerprint, load, save
from graft.checkpoint.difference import difference
from graft.errors import BadInput
from graft.methods.top_layers import TopLayers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    return save(model, "mine", tmp_path / "adapter")


def test_a_fingerprint_survives_json() -> None:
    made = fingerprint(zoo.tiny("llama"))
    read = Fingerprint.from_json(json.loads(json.dumps(made.as_json())))
    assert not difference(made, read).faults and not difference(read, made).remarks
    assert read.tensors.keys() == made.tensors.keys() and read.kind == "LlamaForCausalLM"


@pytest.mark.parametrize("method", ["lora", "prefix_tuning", "prompt_tuning", "bitfit"])
def test_grafting_and_merging_do_not_change_it(method: str) -> None:
    model, made = zoo.tiny("bert"), fingerprint(zoo.tiny("bert"))
    cases.grafted(model, method, "mine")
    assert fingerprint(model) == made
    if method in ("lora", "bitfit"):
        merge(model, "mine")
        assert fingerprint(model) == made


def test_training_in_place_does_not_change_it() -> None:
    model, made = zoo.tiny("llama"), fingerprint(zoo.tiny("llama"))
    cases.move(attach(model, TopLayers(k=1)))
    assert fingerprint(model) == made


def faults(folder: Path, model: Any) -> str:
    with pytest.raises(BadInput, match="is not it") as error:
        load(model, folder)
    return str(error.value)


def test_another_revision_is_named(folder: Path) -> None:
    said = faults(folder, zoo.tiny("llama", seed=1))
    assert "another revision" in said and "revision=" in said and "force=True" in said


def test_a_slightly_trained_base_is_another_revision(folder: Path) -> None:
    model = zoo.tiny("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.0001
    assert "another revision" in faults(folder, model)


def test_a_resized_vocabulary_is_named_and_undone(folder: Path) -> None:
    model = zoo.tiny("llama")
    model.resize_token_embeddings(100, mean_resizing=False)
    said = faults(folder, model)
    assert "resized vocabulary" in said and "resize_token_embeddings(96)" in said and "architecture" not in said
    model.resize_token_embeddings(96)
    load(model, folder)


def test_a_module_that_started_at_random_is_named(folder: Path) -> None:
    model = zoo.tiny("llama")
    with torch.no_grad():
        model.model.norm.weight.normal_()
    assert "other values in norm.weight (1 of 21 tensors)" in faults(folder, model)


def test_another_architecture_is_named(folder: Path) -> None:
    assert "another architecture or size" in faults(folder, zoo.tiny("llama", num_hidden_layers=1))
    assert "another architecture or size" in faults(folder, zoo.tiny("llama", intermediate_size=40))
    assert "architecture" in faults(folder, zoo.tiny("bert"))


def test_another_configuration_of_the_same_tensors_is_named(folder: Path) -> None:
    said = faults(folder, zoo.tiny("llama", rms_norm_eps=0.1))
    assert "rms_norm_eps = 0.1, was 1e-06" in said and "revision:" not in said


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_number_format_is_told_and_no_fault(dtype: torch.dtype, folder: Path) -> None:
    adapter = load(zoo.tiny("llama").to(dtype), folder)
    assert any("another number format" in remark for remark in adapter.remarks)
    other = zoo.tiny("llama", seed=1).to(dtype)
    assert "another revision" in faults(folder, other)


def test_force_loads_and_says_what_was_overridden(folder: Path) -> None:
    adapter = load(zoo.tiny("llama", seed=1), folder, force=True)
    assert any("by force" in remark and "another revision" in remark for remark in adapter.remarks)
