"""LLaMA-Adapter in PEFT's format, which it calls adaption prompts: one gate for all heads, without tanh."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graft.anatomy import Anatomy, Site
from graft.attach import Adapter
from graft.checkpoint.peft.form import INSIDE, Plan, Written
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.methods.llama_adapter import LLaMAAdapter

KNOWN = ("llama", "mistral")  # and gpt2, where PEFT leaves out the output projection


def written(adapter: Adapter, anatomy: Anatomy, method: LLaMAAdapter) -> Written:
    """Gated prompts as PEFT keeps them. Raises Refused where PEFT's function would be another one."""
    if method.gate != "hf":
        raise Refused("PEFT has one gate for all heads, without tanh: train with LLaMAAdapter(gate='hf') for that.")
    sites = _attentions(adapter.model, anatomy)
    parts: dict[str, Any] = {p.site.name: p.part for p in adapter.placed if p.site is not None and not p.head}
    if list(parts) != [site.name for site in sites[-len(parts) :]]:
        raise Refused(f"PEFT has prompts in the top layers, this adapter at {', '.join(list(parts)[:4])}.")
    tensors = {}
    for site in sites[-len(parts) :]:
        tensors[f"{INSIDE}{site.path}.adaption_prompt"] = parts[site.name].P.detach()[None]
        tensors[f"{INSIDE}{site.path}.adaption_gate"] = parts[site.name].g.detach()
    settings = {"peft_type": "ADAPTION_PROMPT", "adapter_len": method.tokens, "adapter_layers": len(parts),
                "target_modules": "self_attn"}  # fmt: skip
    return Written(settings, tensors)


def planned(model: nn.Module, anatomy: Anatomy, config: Mapping[str, Any]) -> Plan:
    """How to read a checkpoint of adaption prompts."""
    sites = _attentions(model, anatomy)
    tokens, layers = config.get("adapter_len"), config.get("adapter_layers")
    if type(tokens) is not int or type(layers) is not int or tokens < 1 or not 1 <= layers <= len(sites):
        raise BadInput(f"PEFT's configuration has {tokens!r:.40} tokens in {layers!r:.40} of {len(sites)} layers.")
    top = sites[-layers:]
    single = torch.float32
    expected = {f"{INSIDE}{s.path}.adaption_prompt": Entry(single, (1, tokens, anatomy.stacks[-1].width)) for s in top}
    expected |= {f"{INSIDE}{site.path}.adaption_gate": Entry(single, (1,)) for site in top}

    def values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {f"{site.name}.P": tensors[f"{INSIDE}{site.path}.adaption_prompt"][0] for site in top}
        return found | {f"{site.name}.g": tensors[f"{INSIDE}{site.path}.adaption_gate"] for site in top}

    return Plan(LLaMAAdapter(tokens=tokens, layers=layers, gate="hf"), expected, values)


def _attentions(model: nn.Module, anatomy: Anatomy) -> list[Site]:
    """The self-attentions in order. Raises Refused for models that PEFT's adaption prompts are not for."""
    kind = model.config.model_type  # type: ignore[union-attr]
    if kind not in KNOWN:
        raise Refused(f"PEFT's adaption prompts are the same function on {' and '.join(KNOWN)} only, this is {kind}.")
    if any(site.bind(model).bias is not None for site in anatomy.sites if site.role == "o"):
        raise Refused(
            "PEFT's adaption prompts add the bias of an attention's output projection twice, and this model has one: "
            "theirs is another function than graft's. Keep such adapters in graft's own format."
        )
    return [site for site in anatomy.sites if site.role == "attention" and not site.cross]
