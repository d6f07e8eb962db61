"""Offsite: the count, what trains, an emulator of everything is the model, ends plugged back bit for bit, refusals."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import cases
import zoo
from graft.anatomy.emulated import KEY, emulated
from graft.attach import attach, detach
from graft.checkpoint import load, save
from graft.errors import BadInput, Refused
from graft.methods.lora import LoRA
from graft.methods.offsite import Offsite
from graft.methods.top_layers import TopLayers
from graft.transfer.emulator import distill, emulate
from methods.sizes import counts

BLOCK = 7_087_872  # of RoBERTa-base
BLOCKS = 25_192_448  # two of GPT-2 medium: 2 (12d² + 13d)


@pytest.mark.parametrize(("model", "ends", "trainable"), [("gpt2-medium", 1, BLOCKS), ("gpt2-medium", 2, 2 * BLOCKS),
                                                         ("roberta-base", 1, 2 * BLOCK)])  # fmt: skip
def test_count_is_that_of_2k_blocks(model: str, ends: int, trainable: int) -> None:
    assert counts(model, Offsite(ends)).trainable == trainable


def deep(layers: int = 7, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = zoo.tiny("llama", num_hidden_layers=layers)
    model.config._name_or_path = "somewhere/full"
    if seed:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
    return model


def tuned(folder: Path, emulator: nn.Module, ends: int = 2) -> dict[str, torch.Tensor]:
    """The tensors of the ends, as if they had been tuned, and an adapter of them in `folder`."""
    adapter = attach(emulator, Offsite(ends), "ends")
    cases.move(adapter)
    save(emulator, "ends", folder)
    return {name: parameter.detach().clone() for name, parameter in adapter.named_parameters()}


@torch.no_grad()
def test_an_emulator_of_everything_is_the_model(tmp_path: Path) -> None:
    model = deep()
    emulator, batch = emulate(model, 2, 1.0), zoo.batch(model)
    assert torch.equal(zoo.forward(emulator, batch), zoo.forward(model, batch))
    emulator.save_pretrained(tmp_path / "emulator")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "emulator")
    tuned(tmp_path / "ends", again)
    load(model, tmp_path / "ends")
    assert torch.equal(zoo.forward(model, batch), zoo.forward(again, batch))


@torch.no_grad()
def test_tuned_ends_replace_the_models_own(tmp_path: Path) -> None:
    model = deep()
    before, batch = {name: value.clone() for name, value in model.state_dict().items()}, zoo.batch(model)
    base = zoo.forward(model, batch)
    emulator = emulate(model, 2, 0.4)
    assert emulated(emulator.config).kept == (0, 1, 3, 5, 6) and len(emulator.model.layers) == 5
    ends = tuned(tmp_path, emulator)
    adapter = load(model, tmp_path)
    assert any("plugged back" in remark for remark in adapter.remarks)
    after = model.state_dict()
    for there, here in ((0, 0), (1, 1), (3, 5), (4, 6)):
        names = [name for name in ends if name.startswith(f"model.layers.{there}.")]
        assert len(names) == 9
        for name in names:
            on_full = name.replace(f"layers.{there}.", f"layers.{here}.")
            assert torch.equal(after[on_full], ends[name]) and not torch.equal(after[on_full], before[on_full])
    untouched = [name for name in before if name not in adapter.trained]
    assert all(torch.equal(after[name], before[name]) for name in untouched)
    save(model, adapter.name, tmp_path / "full")
    tuned_output = zoo.forward(model, batch)
    detach(model, adapter.name)
    assert torch.equal(zoo.forward(model, batch), base)
    load(model, tmp_path / "full")  # now an adapter of the full model itself
    assert torch.equal(zoo.forward(model, batch), tuned_output)


@torch.no_grad()
def test_the_last_blocks_alone_go_back_too_and_others_do_not(tmp_path: Path) -> None:
    model, emulator = deep(), emulate(deep(), 2, 0.4)
    for method, fits in ((TopLayers(1), True), (TopLayers(3), False), (LoRA(2), False)):
        cases.move(attach(emulator, method, "mine"))
        save(emulator, "mine", tmp_path / type(method).__name__)
        detach(emulator, "mine")
        if fits:
            adapter = load(model, tmp_path / type(method).__name__)
            assert {name.split(".")[2] for name in adapter.trained} == {"6"}
            detach(model, adapter.name)
            continue
        with pytest.raises(Refused, match=r"nothing of the 2 whole blocks.*--offsite\.ends 2"):
            load(model, tmp_path / type(method).__name__)


def test_other_models_are_refused(tmp_path: Path) -> None:
    emulator = emulate(deep(), 2, 0.4, "somewhere/full")
    tuned(tmp_path, emulator)
    for other, told in ((deep(seed=1), "another revision"), (deep(6), "another architecture or size")):
        with pytest.raises(BadInput, match=rf"(?s)emulator of somewhere/full.*is not that model.*{told}"):
            load(other, tmp_path)
    with pytest.raises(BadInput, match="is not it"):
        load(emulate(deep(), 1, 0.4), tmp_path)
    adapter = load(deep(seed=1), tmp_path, force=True)
    assert any("by force" in remark for remark in adapter.remarks)
    record = tmp_path / "graft.json"
    said = json.loads(record.read_text())
    said["base"]["fingerprint"]["config"][KEY]["kept"] = [0, 1, 3, 5, 99]
    record.write_text(json.dumps(said))
    with pytest.raises(BadInput, match="is not what `graft emulate` writes"):
        load(deep(), tmp_path)


def test_impossible_ends() -> None:
    with pytest.raises(BadInput, match="ends must be at least 1"):
        Offsite(0)
    with pytest.raises(BadInput, match=r"ends=2 are 4 blocks, and the decoder has 2\. Choose at most 1"):
        attach(zoo.tiny("llama"), Offsite(2))
    with pytest.raises(BadInput, match=r"ends=2, and this emulator has 1 whole blocks at each end"):
        attach(emulate(deep(), 1, 0.6), Offsite(2))
    for ends, keep, match in ((3, 0.5, None), (4, 0.5, "would be between the ends"), (2, 0.0, "share of the middle")):
        if match is None:
            assert emulated(emulate(deep(), ends, keep).config).kept == (0, 1, 2, 3, 4, 5, 6)
            continue
        with pytest.raises(BadInput, match=match):
            emulate(deep(), ends, keep)
    with pytest.raises(Refused, match="not one stack of blocks"):
        emulate(zoo.tiny("t5"), 1, 0.5)


def test_what_is_said_of_each_block_is_kept_for_its_own() -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    model = zoo.tiny("gemma3", num_hidden_layers=4, layer_types=kinds)
    assert emulate(model, 1, 0.5).config.layer_types == [kinds[0], kinds[1], kinds[3]]
    assert model.config.layer_types == kinds


def test_distilling_brings_the_middle_nearer() -> None:
    model, draws = deep(), torch.Generator().manual_seed(0)
    emulator = emulate(model, 1, 0.4)
    before, full = copy.deepcopy(emulator.state_dict()), copy.deepcopy(model.state_dict())
    rows = torch.randint(5, zoo.VOCABULARY, (15, 10), generator=draws).tolist()
    first, last = distill(model, emulator, rows, steps=25, rate=5e-3, batch=4, seed=0)
    assert last < 0.95 * first
    changed = {name for name, value in emulator.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("model.layers.1.", "model.layers.2.")) for name in changed)
    assert all(torch.equal(value, full[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in emulator.parameters())
