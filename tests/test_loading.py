"""Bases: where they come from, what their checkpoints lack, and devices and number formats."""

from pathlib import Path
from typing import Any

import pytest
import torch

import small
from graft import data
from graft.errors import BadInput, Refused
from graft.loading import chosen_device, find_base, in_bf16, kept_with, load_base, load_generator


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loading")
    for kind in ("bert", "llama"):
        small.base(folder, kind)
    small.classes(folder)
    return folder


def task_of(home: Path, kind: str, task: str = "classification") -> tuple[Any, Any]:
    source = find_base(home / kind)
    rows = {
        "classification": [{"text": "cat", "label": "animal"}, {"text": "oak", "label": "plant"}],
        "question_answering": [{"question": "cat", "context": "the dog", "answers": [{"text": "dog"}]}],
        "multiple_choice": [{"question": "cat", "choices": ["a", "b"], "answer": 0}],
    }[task]  # fmt: skip
    found = data.load(rows, task=task, splits="train")
    return source, data.fit(found, source.tokenizer, source.config, 32)


def test_a_new_head_starts_from_the_seed_and_is_named(home: Path) -> None:
    source, task = task_of(home, "bert")
    one, same, other = (load_base(source, task, device="cpu", seed=seed) for seed in (0, 0, 1))
    assert one.fresh == ("classifier.bias", "classifier.weight")
    assert any(
        "no weights for classifier.bias, classifier.weight: they start at random (seed 0)" in n for n in one.notes
    )
    weights = [base.model.get_parameter("classifier.weight") for base in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not one.model.training and one.model.config.num_labels == 2  # type: ignore[union-attr]


def test_a_body_under_another_name_is_loaded(home: Path) -> None:
    # Llama's question answering head calls its body `transformer`, every other one `model`.
    source, task = task_of(home, "llama", "question_answering")
    base = load_base(source, task, device="cpu")
    assert base.fresh == ("qa_outputs.bias", "qa_outputs.weight")
    whole = load_generator(source, device="cpu")
    layer = "layers.1.self_attn.q_proj.weight"
    assert torch.equal(base.model.get_parameter(f"transformer.{layer}"), whole.get_parameter(f"model.{layer}"))


def test_a_base_that_would_be_mostly_random_is_refused(home: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = small.base(tmp_path, "bert")
    kept = {name: t for name, t in load_file(folder / "model.safetensors").items() if "embeddings.word" in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    source, task = task_of(tmp_path, "bert")
    with pytest.raises(Refused, match="most of the base would be random"):
        load_base(source, task, device="cpu")


def test_what_is_no_base_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        find_base(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"no config\.json"):
        find_base(tmp_path)
    source, task = task_of(home, "bert", "multiple_choice")
    with pytest.raises(Refused, match="has no"):
        load_base(find_base(home / "llama"), task)
    with pytest.raises(Refused, match="no language model's head"):
        load_generator(source)


def test_a_tokenizer_is_needed(tmp_path: Path) -> None:
    folder = small.base(tmp_path, "bert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(BadInput, match="no usable tokenizer"):
        find_base(folder)


def test_devices_and_number_formats(home: Path) -> None:
    assert chosen_device("cpu") == torch.device("cpu")
    with pytest.raises(BadInput, match="no device is called so"):
        chosen_device("abacus")
    with pytest.raises(BadInput, match="is not here"):
        chosen_device(f"cuda:{torch.cuda.device_count() + 7}")
    assert not in_bf16("auto", torch.device("cpu")) and in_bf16("bf16", torch.device("cpu"))
    source, task = task_of(home, "bert")
    assert load_base(source, task, device="cpu", dtype="bf16").model.dtype == torch.bfloat16


def test_an_adapter_keeps_what_it_was_given(home: Path, tmp_path: Path) -> None:
    import graft

    study = small.study_of(home)
    graft.attach(study.model, graft.LoRA(rank=2), "kept")
    graft.save(study.model, "kept", tmp_path / "kept", extra={"seed": 7})
    assert kept_with(tmp_path / "kept") == {"seed": 7}
