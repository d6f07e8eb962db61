"""Given the same tensors, graft and Hugging Face PEFT are one function with one gradient, in both directions."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach
from graft.checkpoint import export, load
from graft.method import Method
from graft.methods.adalora import AdaLoRA
from graft.methods.dora import DoRA
from graft.methods.fourier_ft import FourierFT
from graft.methods.hra import HRA
from graft.methods.ia3 import IA3
from graft.methods.llama_adapter import LLaMAAdapter
from graft.methods.ln_tuning import LNTuning
from graft.methods.loha import LoHa
from graft.methods.lokr import LoKr
from graft.methods.lora import LoRA
from graft.methods.oft import OFT
from graft.methods.p_tuning import PTuning
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.vera import VeRA

# PEFT and transformers warn of each other's changes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TASKS = {"llama": "lm", "mistral": "lm", "gpt2": "lm", "t5": "lm", "bert": "classification"}
NAMES = {"lm": "CAUSAL_LM", "classification": "SEQ_CLS"}
QV = {"gpt2": ["c_attn"], "t5": ["q", "v"], "bert": ["query", "value"]}
MODELS = ("llama", "gpt2", "t5", "bert")


def theirs(method: str, model: str) -> peft.PeftConfig:
    """PEFT's own configuration, with its own defaults of where to act."""
    task = "SEQ_2_SEQ_LM" if model == "t5" else NAMES[TASKS[model]]
    at = {"target_modules": QV.get(model, ["q_proj", "v_proj"]), "task_type": task}
    low = {"r": 3, "lora_alpha": 5, "fan_in_fan_out": model == "gpt2", **at}
    # PEFT counts the encoder's layers, and its prefix goes to the decoder's.
    layers = {"num_layers": 3} if model == "t5" else {}
    return {
        "vera": lambda: peft.VeraConfig(r=5, **at),
        "vera_drawn": lambda: peft.VeraConfig(r=5, projection_prng_key=3, save_projection=False, **at),
        "loha": lambda: peft.LoHaConfig(r=3, alpha=5, **at),
        "lokr": lambda: peft.LoKrConfig(r=3, alpha=5, **at),
        "lokr_both": lambda: peft.LoKrConfig(r=1, alpha=5, decompose_both=True, decompose_factor=5, **at),
        "lokr_full": lambda: peft.LoKrConfig(r=9, alpha=5, decompose_factor=16, **at),
        "hra": lambda: peft.HRAConfig(r=4, **at),
        "hra_odd": lambda: peft.HRAConfig(r=3, **at),
        "hra_orthogonal": lambda: peft.HRAConfig(r=3, apply_GS=True, **at),
        "oft": lambda: peft.OFTConfig(oft_block_size=8, **at),
        "oft_terms": lambda: peft.OFTConfig(oft_block_size=8, num_cayley_neumann_terms=3, **at),
        "oft_exact": lambda: peft.OFTConfig(r=2, oft_block_size=0, use_cayley_neumann=False, **at),
        "oft_shared": lambda: peft.OFTConfig(oft_block_size=7, block_share=True, use_cayley_neumann=False, **at),
        "fourier_ft": lambda: peft.FourierFTConfig(n_frequency=30, scaling=50.0, random_loc_seed=5, **at),
        "ln_tuning": lambda: peft.LNTuningConfig(
            task_type=task, target_modules=["LayerNorm"] if model == "bert" else None
        ),
        "adalora": lambda: peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, **{**low, "lora_alpha": 6}),
        "llama_adapter": lambda: peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=2, task_type=task),
        "p_tuning": lambda: peft.PromptEncoderConfig(
            task_type=task, num_virtual_tokens=3, encoder_hidden_size=7, num_transformer_submodules=1
        ),
        "lora": lambda: peft.LoraConfig(**low),
        "rslora": lambda: peft.LoraConfig(**low, use_rslora=True),
        "dora": lambda: peft.LoraConfig(**low, use_dora=True),
        "rsdora": lambda: peft.LoraConfig(**low, use_dora=True, use_rslora=True),
        "ia3": lambda: peft.IA3Config(task_type=task),
        "prompt": lambda: peft.PromptTuningConfig(task_type=task, num_virtual_tokens=3),
        "prefix": lambda: peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=3, **layers),
        "projected": lambda: peft.PrefixTuningConfig(
            task_type=task, num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=7, **layers
        ),
    }[method]()


def tiny(name: str) -> Any:
    """A tiny model; T5 with three layers in its decoder, so that PEFT's slots 0, 2, 1 differ."""
    return zoo.tiny(name, TASKS[name], **({"num_decoder_layers": 3} if name == "t5" else {}))


def ours(method: str, model: str) -> Method:
    variant: Any = "hf" if model in ("bert", "t5") else "paper"
    # PEFT has one method for a whole fused projection.
    at = {"sites": "*.c_attn"} if model == "gpt2" else {}
    return {
        "vera": lambda: VeRA(rank=5, seed=2, **at),
        "loha": lambda: LoHa(rank=3, alpha=5.0),
        "lokr": lambda: LoKr(rank=3, alpha=5.0),
        "lokr_both": lambda: LoKr(rank=1, alpha=5.0, factor=5, decompose_both=True, variant="hf"),
        "lokr_stable": lambda: LoKr(rank=3, alpha=5.0, rslora=True),
        "lokr_full": lambda: LoKr(rank=9, alpha=5.0, factor=16),
        "hra": lambda: HRA(rank=4),
        "hra_odd": lambda: HRA(rank=3, init="random"),
        "hra_orthogonal": lambda: HRA(rank=3, gram_schmidt=True),
        "oft": lambda: OFT(block=8, variant="neumann", terms=6),
        "oft_exact": lambda: OFT(block=16),
        "oft_shared": lambda: OFT(block=8, share=True),
        "fourier_ft": lambda: FourierFT(frequencies=30, scale=50.0, **at),
        "ln_tuning": lambda: LNTuning(),
        "adalora": lambda: AdaLoRA(init_rank=4, target_rank=2, total_steps=9, warmup=1, final=1, **at),
        "llama_adapter": lambda: LLaMAAdapter(tokens=3, gate="hf"),
        "p_tuning": lambda: PTuning(tokens=3, encoder="mlp"),
        "lora": lambda: LoRA(rank=3, alpha=5.0),
        "rslora": lambda: LoRA(rank=3, alpha=5.0, rslora=True),
        "dora": lambda: DoRA(rank=3, alpha=5.0),
        "rsdora": lambda: DoRA(rank=3, alpha=5.0, rslora=True),
        "ia3": lambda: IA3(variant="hf" if model == "bert" else "paper"),
        "prompt": lambda: PromptTuning(tokens=3, variant="hf" if model == "bert" else "paper"),
        "prefix": lambda: PrefixTuning(tokens=3, variant=variant if model == "t5" else "paper"),
        "projected": lambda: PrefixTuning(tokens=3, reparameterize=True, hidden=6),
    }[method]()


def moved(parameters: Any) -> None:
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draws))


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Logits at real tokens: PEFT gives those at virtual tokens too, and padding may do as it likes."""
    found = model(**batch).logits
    if found.dim() < 3 or "decoder_input_ids" in batch:
        return found
    return found[:, -batch["input_ids"].shape[1] :][batch["attention_mask"].bool()]


def close(a: Tensor, b: Tensor, bound: float = 1e-5) -> None:
    assert float((a - b).detach().abs().max()) <= bound * max(1.0, float(b.detach().abs().max()))


def step(model: nn.Module, parameters: list[nn.Parameter], batch: dict[str, Tensor]) -> None:
    """Subtract the gradient itself, so that tensors differ afterwards by as much as gradients do."""
    logits(model, batch).square().mean().backward()
    with torch.no_grad():
        for parameter in parameters:
            parameter -= parameter.grad if parameter.grad is not None else 0.0


METHODS = ("lora", "rslora", "dora", "ia3", "prompt", "prefix", "vera", "fourier_ft", "ln_tuning", "adalora")
# PEFT has these for nn.Linear only, which GPT-2 has none of.
LINEAR = (
    "loha",
    "lokr",
    "lokr_both",
    "lokr_full",
    "hra",
    "hra_odd",
    "hra_orthogonal",
    "oft",
    "oft_exact",
    "oft_shared",
)
READ_ONLY = ("vera_drawn", "oft_terms")  # which graft writes in another way
ON_MODELS = [(method, model) for method in (*METHODS, *LINEAR) for model in MODELS
             if method in METHODS or model != "gpt2"]  # fmt: skip
ON_MODELS += [("llama_adapter", "llama"), ("llama_adapter", "mistral"), ("rsdora", "llama")]


@pytest.mark.parametrize(("method", "model_name"), [*ON_MODELS, *((method, "llama") for method in READ_ONLY)])
def test_a_checkpoint_of_peft_is_the_same_function_with_the_same_gradients(
    method: str, model_name: str, tmp_path: Path
) -> None:
    base = tiny(model_name)
    batch = zoo.batch(base)
    them = peft.get_peft_model(base, theirs(method, model_name)).eval()
    moved(them.parameters())
    them.save_pretrained(tmp_path / "theirs")
    us = tiny(model_name)
    adapter = load(us, tmp_path / "theirs")
    close(logits(us, batch), logits(them, batch))

    step(them, [p for p in them.parameters() if p.requires_grad], batch)
    step(us, adapter.parameters(), batch)
    them.save_pretrained(tmp_path / "theirs")
    export(us, "default", tmp_path / "ours")
    stable = [json.loads((tmp_path / name / "adapter_config.json").read_text()).get("use_rslora", False)
              for name in ("theirs", "ours")]  # fmt: skip
    assert stable[0] == stable[1]
    want, seen = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("theirs", "ours"))
    for key in seen.keys() if method != "vera_drawn" else want.keys():
        close(seen[key], want[key][: len(seen[key])], 1e-4)
    rest = {key: value for key, value in want.items() if key not in seen}
    assert not rest
    close(logits(us, batch), logits(them, batch), 1e-4)


@pytest.mark.parametrize(
    ("method", "model_name"),
    [
        *ON_MODELS,
        ("lokr_stable", "llama"),
        *(("projected", model) for model in MODELS),
        *(("p_tuning", model) for model in MODELS if model != "bert"),
    ],
)
def test_an_adapter_survives_the_way_to_peft_and_back(method: str, model_name: str, tmp_path: Path) -> None:
    if (method, model_name) == ("projected", "t5"):
        return  # in an encoder-decoder PEFT's prefix is flat
    us = tiny(model_name)
    batch = zoo.batch(us)
    cases.move(attach(us, ours(method, model_name), "mine"))
    want = logits(us, batch)
    export(us, "mine", tmp_path / "peft")
    them = peft.PeftModel.from_pretrained(tiny(model_name), tmp_path / "peft").eval()
    close(logits(them, batch), want)
    again = tiny(model_name)
    load(again, tmp_path / "peft")
    close(logits(again, batch), want)


@pytest.mark.parametrize(
    ("model_name", "task", "config"),
    [
        (
            "bert",
            "tagging",
            peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=7, task_type="TOKEN_CLS"),
        ),
        ("bert", "answers", peft.PromptTuningConfig(num_virtual_tokens=3, task_type="QUESTION_ANS")),
        ("deberta_v2", "classification", peft.LoraConfig(target_modules=["query_proj"], task_type="SEQ_CLS")),
        ("modernbert", "tagging", peft.LoraConfig(target_modules=["Wqkv"], task_type="TOKEN_CLS")),
    ],
)
def test_tasks_of_encoders_are_read(model_name: str, task: str, config: peft.PeftConfig, tmp_path: Path) -> None:
    """Outputs at virtual tokens are left in, and of a head of several modules the rest is the base's, as PEFT does."""
    base, us = zoo.tiny(model_name, task), zoo.tiny(model_name, task)
    them = peft.get_peft_model(base, config).eval()
    moved(p for p in them.parameters() if p.requires_grad)
    them.save_pretrained(tmp_path)
    adapter = load(us, tmp_path)
    batch = zoo.batch(base)
    close(zoo.forward(us, batch), zoo.forward(them, batch))
    assert any("is the base's" in remark for remark in adapter.remarks) == (model_name != "bert")
