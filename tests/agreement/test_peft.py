"""Given the same tensors, graft and Hugging Face PEFT are one function with one gradient, in both directions."""

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
from graft.methods.dora import DoRA
from graft.methods.ia3 import IA3
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning

# PEFT and transformers warn of each other's changes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TASKS = {"llama": "lm", "gpt2": "lm", "t5": "lm", "bert": "classification"}
NAMES = {"llama": "CAUSAL_LM", "gpt2": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM", "bert": "SEQ_CLS"}
QV = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"], "t5": ["q", "v"], "bert": ["query", "value"]}
MODELS = tuple(TASKS)


def theirs(method: str, model: str) -> peft.PeftConfig:
    """PEFT's own configuration, with its own defaults of where to act."""
    task, low = NAMES[model], {"r": 3, "lora_alpha": 5, "target_modules": QV[model], "task_type": NAMES[model]}
    low["fan_in_fan_out"] = model == "gpt2"
    # PEFT counts the encoder's layers, and its prefix goes to the decoder's.
    layers = {"num_layers": 3} if model == "t5" else {}
    return {
        "lora": lambda: peft.LoraConfig(**low),
        "rslora": lambda: peft.LoraConfig(**low, use_rslora=True),
        "dora": lambda: peft.LoraConfig(**low, use_dora=True),
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
    return {
        "lora": lambda: LoRA(rank=3, alpha=5.0),
        "rslora": lambda: LoRA(rank=3, alpha=5.0, rslora=True),
        "dora": lambda: DoRA(rank=3, alpha=5.0),
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


METHODS = ("lora", "rslora", "dora", "ia3", "prompt", "prefix")


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("method", METHODS)
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
    want, seen = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("theirs", "ours"))
    for key in seen:
        close(seen[key], want[key][: len(seen[key])], 1e-4)
    rest = {key: value for key, value in want.items() if key not in seen}
    assert not rest
    close(logits(us, batch), logits(them, batch), 1e-4)


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("method", (*METHODS, "projected"))
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
