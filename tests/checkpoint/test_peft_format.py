"""What PEFT's format can and cannot say: refusals that name the reason, and layouts other than the usual one."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach
from graft.checkpoint import export, load
from graft.errors import BadInput, Refused
from graft.method import Method
from graft.methods.adapter_drop import AdapterDrop
from graft.methods.dora import DoRA
from graft.methods.fourier_ft import FourierFT
from graft.methods.hra import HRA
from graft.methods.ia3 import IA3
from graft.methods.ln_tuning import LNTuning
from graft.methods.loha import LoHa
from graft.methods.lokr import LoKr
from graft.methods.lora import LoRA
from graft.methods.lora_fa import LoRAFA
from graft.methods.lora_plus import LoRAPlus
from graft.methods.oft import OFT
from graft.methods.pissa import PiSSA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.vera import VeRA

# PEFT and transformers warn of each other's changes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Outputs that mean something: padding may do as it likes."""
    with torch.no_grad():
        found = zoo.forward(model, batch)
    tokens = batch["attention_mask"].bool()
    return found[tokens] if found.shape[:2] == tokens.shape and "decoder_input_ids" not in batch else found


def there_and_back(model_name: str, task: str, method: Method, folder: Path, **changes: Any) -> None:
    """Graft → PEFT itself → graft: three times the same outputs."""
    model = zoo.tiny(model_name, task, **changes)
    batch = zoo.batch(model)
    cases.move(attach(model, method, "mine"))
    want = outputs(model, batch)
    export(model, "mine", folder / "peft")
    them = peft.PeftModel.from_pretrained(zoo.tiny(model_name, task, **changes), folder / "peft").eval()
    torch.testing.assert_close(outputs(them, batch), want, rtol=1e-5, atol=1e-5)
    again = zoo.tiny(model_name, task, **changes)
    load(again, folder / "peft")
    torch.testing.assert_close(outputs(again, batch), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model_name", "task", "method"),
    [
        ("gpt2", "lm", LoRA(rank=2, sites="q v o")),  # one rank on c_attn, another on c_proj
        ("gpt2", "lm", LoRA(rank=2, alpha=3.0, rslora=True, sites="q k v o down")),
        ("gpt2", "lm", DoRA(rank=2, sites="q v")),
        ("gpt2", "lm", DoRA(rank=2, alpha=3.0, rslora=True, sites="q v o")),
        ("llama", "lm", PiSSA(rank=2, alpha=3.0)),  # what follows is stored as a LoRA, and written as one
        ("gpt2", "lm", PiSSA(rank=3, alpha=5.0, rslora=True, sites="q v o")),
        ("llama", "lm", LoRAFA(rank=2, rslora=True)),
        ("bert", "classification", LoRAPlus(rank=2)),
        ("llama", "lm", AdapterDrop(host="lora(rank=2)", robust=True)),
        ("gpt2", "lm", IA3(sites="k v down")),
        ("gpt_neox", "lm", LoRA(rank=2, sites="q v")),  # q, k and v interleaved by head
        ("gpt_neox", "lm", DoRA(rank=2, sites="k")),
        ("phi3", "lm", LoRA(rank=2, sites="q v gate down")),
        ("llama", "lm", LoRA(rank=2, sites="all-linear")),
        ("llama", "lm", LoRA(rank=2, sites="q v @ 1")),
        ("llama", "lm", LoRA(rank=2, sites="embed")),
        ("t5", "lm", LoRA(rank=2, sites="cross: k v")),
        ("t5", "lm", LoRA(rank=2, sites="decoder: q; encoder: up")),
        ("roberta", "classification", LoRA(rank=2)),  # a head of two layers
        ("bert", "tagging", IA3()),
        ("bert", "answers", LoRA(rank=2)),
        ("bert", "base", LoRA(rank=2)),
        ("bert", "lm", LoRA(rank=2)),
        ("t5", "lm", VeRA(rank=3, sites="q down")),  # sites of two sizes share one pair
        ("gpt2", "lm", VeRA(rank=3, sites="down o")),
        ("phi3", "lm", LoHa(rank=2, sites="o down")),
        ("bert", "answers", LoKr(rank=2, factor=8)),
        ("roberta", "classification", HRA(rank=2, sites="all-linear")),
        ("llama", "lm", OFT(block=16, sites="all-linear")),
        ("llama", "lm", FourierFT(frequencies=9, init="zeros", sites="q v down")),  # places for each of three shapes
        ("gpt2", "lm", FourierFT(frequencies=9, sites="o up")),
        ("bert", "tagging", LNTuning()),
        ("qwen3", "lm", LNTuning()),
        ("llama", "lm", LNTuning(sites="norm @ 1")),
        ("bart", "lm", LNTuning(sites="decoder: norm")),
        ("bart", "lm", PrefixTuning(tokens=2, variant="hf")),
        ("bart", "lm", PromptTuning(tokens=2)),
        ("qwen3", "lm", PrefixTuning(tokens=2)),
        ("llama", "classification", PrefixTuning(tokens=2)),
    ],
    ids=str,
)
def test_the_way_to_peft_and_back(model_name: str, task: str, method: Method, tmp_path: Path) -> None:
    there_and_back(model_name, task, method, tmp_path)


def test_tokens_that_a_network_computed_are_read_as_what_it_gave(tmp_path: Path) -> None:
    for model, task, at in (("llama", "lm", "CAUSAL_LM"), ("bert", "classification", "SEQ_CLS")):
        config = peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=7, task_type=at)
        them = peft.get_peft_model(zoo.tiny(model, task), config).eval()
        them.save_pretrained(tmp_path / model)
        us = zoo.tiny(model, task)
        load(us, tmp_path / model)
        batch = zoo.batch(us)
        theirs = them(**batch).logits
        want = theirs[:, 3:] if model == "llama" else theirs
        tokens = batch["attention_mask"].bool() if model == "llama" else slice(None)
        torch.testing.assert_close(us(**batch).logits[tokens], want[tokens], rtol=1e-5, atol=1e-5)


def test_triplets_that_were_pruned_are_read(tmp_path: Path) -> None:
    config = peft.AdaLoraConfig(init_r=4, target_r=1, total_step=6, tinit=1, tfinal=2, deltaT=1, lora_alpha=6,
                                target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")  # fmt: skip
    them = peft.get_peft_model(zoo.tiny("llama"), config)
    batch = zoo.batch(them)
    optimizer = torch.optim.SGD([p for p in them.parameters() if p.requires_grad], lr=0.5)
    for step in range(1, 6):
        them(**batch).logits.square().mean().backward()
        optimizer.step()
        them.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    pruned = {name for name, p in them.named_parameters() if "lora_E" in name and not p.all()}
    assert pruned
    them.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    us = zoo.tiny("llama")
    load(us, tmp_path)
    torch.testing.assert_close(outputs(us, batch), outputs(them.eval(), batch), rtol=1e-5, atol=1e-5)


def test_ranks_and_alphas_by_module_are_read(tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=2,
        lora_alpha=4,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"layers.1.self_attn.v_proj": 3},
        alpha_pattern={"q_proj": 7},
        layers_to_transform=[1],
        init_lora_weights=False,
    )
    them = peft.get_peft_model(zoo.tiny("llama"), config).eval()
    them.save_pretrained(tmp_path)
    us = zoo.tiny("llama")
    adapter = load(us, tmp_path)
    batch = zoo.batch(us)
    torch.testing.assert_close(outputs(us, batch), outputs(them, batch))
    assert adapter.coverage == {"q": 1, "v": 1}


@pytest.mark.parametrize(
    "config",
    [
        peft.LoHaConfig(r=2, alpha=4, rank_pattern={"layers.1.self_attn.v_proj": 3}, alpha_pattern={"q_proj": 7}),
        peft.LoKrConfig(r=2, alpha=4, rank_pattern={"layers.1.self_attn.v_proj": 5}, decompose_factor=0),
        peft.LoKrConfig(r=1, alpha=4, decompose_factor=5, layers_to_transform=[1]),  # 5 divides neither 32 nor 48
        peft.OFTConfig(oft_block_size=20, init_weights=False),  # 16 of 32 inputs, 16 or 24 of 48
        peft.OFTConfig(r=4, oft_block_size=0, init_weights=False),  # blocks of 8 and of 12
        peft.OFTConfig(oft_block_size=100, block_share=True, init_weights=False),  # one block of the input's size
        peft.FourierFTConfig(n_frequency=20, n_frequency_pattern={"down_proj": 33}),
        peft.HRAConfig(r=4, layers_to_transform=0, init_weights=False),
        peft.VeraConfig(r=4, d_initial=0.5, vera_dropout=0.25),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_settings_by_module_and_sizes_that_do_not_divide_are_read(config: peft.PeftConfig, tmp_path: Path) -> None:
    config.target_modules = {"q_proj", "v_proj", "down_proj"}
    config.task_type = "CAUSAL_LM"
    them = peft.get_peft_model(zoo.tiny("llama"), config).eval()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in them.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
    them.save_pretrained(tmp_path)
    us = zoo.tiny("llama")
    load(us, tmp_path)
    batch = zoo.batch(us)
    torch.testing.assert_close(outputs(us, batch), outputs(them, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False),
        peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False),
        peft.VeraConfig(r=2, target_modules=["lm_head", "q_proj"], init_weights=False),
        peft.FourierFTConfig(n_frequency=4, target_modules=["lm_head"]),
        peft.AdaLoraConfig(init_r=2, target_r=2, total_step=9, target_modules=["lm_head"], init_lora_weights=False),
        peft.LoHaConfig(r=2, target_modules=["lm_head"], init_weights=False),
    ],
    ids=lambda config: f"{config.peft_type.value}-{min(config.target_modules)}",
)
def test_what_peft_keeps_of_the_base_must_be_the_base_s(config: peft.PeftConfig, tied: bool, tmp_path: Path) -> None:
    """Of embeddings and heads by these names that it acts on, PEFT keeps the base's tensors too."""
    config.task_type = "CAUSAL_LM"
    them = peft.get_peft_model(zoo.tiny("llama", tie_word_embeddings=tied), config).eval()
    them.save_pretrained(tmp_path)
    name = min(config.target_modules)
    copy = next(key for key in load_file(tmp_path / "adapter_model.safetensors") if f"{name}.base_layer.weight" in key)
    us = zoo.tiny("llama", tie_word_embeddings=tied)
    load(us, tmp_path)
    batch = zoo.batch(us)
    torch.testing.assert_close(outputs(us, batch), outputs(them, batch), rtol=1e-5, atol=1e-5)
    with pytest.raises(Refused, match=f"another .*{name} than this base"):
        load(zoo.tiny("llama", seed=1, tie_word_embeddings=tied), tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors[copy.replace(name, "elsewhere")] = tensors.pop(copy)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInput, match="elsewhere"):
        load(zoo.tiny("llama", tie_word_embeddings=tied), tmp_path)


def test_targets_by_pattern_are_taken_from_the_tensors(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    export(model, "mine", tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": r".*\.(q|v)_proj"}))
    fresh = zoo.tiny("llama")
    load(fresh, tmp_path)
    assert torch.equal(outputs(fresh, zoo.batch(fresh)), outputs(model, zoo.batch(model)))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors["base_model.model.elsewhere.lora_A.weight"] = torch.zeros(3, 32)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInput, match="not expected"):
        load(zoo.tiny("llama"), tmp_path)


def test_modules_to_save_that_this_model_does_not_have_are_no_loss(tmp_path: Path) -> None:
    """PEFT names the heads of all model families for a task."""
    model = zoo.tiny("roberta", "classification")
    cases.grafted(model, "lora", "mine")
    export(model, "mine", tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modules_to_save": ["classifier", "score"]}))
    fresh = zoo.tiny("roberta", "classification")
    load(fresh, tmp_path)
    assert torch.equal(outputs(fresh, zoo.batch(fresh)), outputs(model, zoo.batch(model)))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    del tensors["base_model.model.classifier.dense.weight"]
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"lacks base_model.model.classifier.dense.weight; "):
        load(zoo.tiny("roberta", "classification"), tmp_path)
