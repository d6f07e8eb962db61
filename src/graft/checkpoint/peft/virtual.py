"""Prompt tuning, P-tuning and prefix tuning in PEFT's format: one tensor, a row for each virtual token.

A row of a prefix is (layer, key or value, head, width). In an encoder-decoder PEFT gives keys to decoder
self-attention only, and its layer i reads slot 2i mod L: that is graft's `variant="hf"`. A bidirectional encoder with a
prompt is pooled at the first virtual token by PEFT: `variant="hf"` again. P-tuning is stored as the tokens that its
network gives, which are those of prompt tuning from then on.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graft.anatomy import Anatomy, Site
from graft.attach import Adapter
from graft.checkpoint.peft.form import BEFORE, Plan, Written, task
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.methods.p_tuning import PTuning
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning

KEY = "prompt_embeddings"


def written_prompt(adapter: Adapter, anatomy: Anatomy, method: PromptTuning | PTuning) -> Written:
    """A prompt as PEFT keeps it. Raises Refused where PEFT's function would be another one."""
    computed = isinstance(method, PTuning)
    pooled_there = isinstance(method, PromptTuning) and method.variant == "hf"
    if len(anatomy.stacks) == 1 and not anatomy.causal and not pooled_there:
        raise Refused("PEFT pools an encoder at a virtual token, as PromptTuning(variant='hf') does.")
    parts: Any = adapter.deployed()
    prompt = next(parts[placed.key].P for placed in adapter.placed if not placed.head).detach()
    settings = _settings(adapter.model, anatomy, "P_TUNING" if computed else "PROMPT_TUNING", method.tokens)
    # Even for an encoder-decoder PEFT reads one set of rows, those of the encoder.
    settings |= {"token_dim": prompt.shape[1], "num_transformer_submodules": 1}
    settings |= {"encoder_hidden_size": prompt.shape[1]} if computed else {"prompt_tuning_init": "RANDOM"}
    return Written(settings, {KEY: prompt}, BEFORE)


def written_prefix(adapter: Adapter, anatomy: Anatomy, method: PrefixTuning) -> Written:
    """A prefix as PEFT keeps it, computed where a network makes it. Raises Refused where PEFT has no place for it."""
    sites = _attentions(anatomy)
    rows: Any = adapter.deployed()
    if len(anatomy.stacks) > 1:
        if method.variant == "paper":
            raise Refused(
                "PEFT's prefix reaches decoder self-attention only, and its layers share keys: train with "
                "PrefixTuning(variant='hf') for that."
            )
        flat = next(part.P for key, part in rows.items() if key.startswith("shared.")).detach().permute(2, 0, 1, 3, 4)
    else:
        if lacking := [site.name for site in sites if site.name not in rows]:
            raise Refused(f"PEFT gives keys to every layer, this adapter has none at {', '.join(lacking[:3])}.")
        pairs = [torch.stack((rows[site.name].keys, rows[site.name].values), 1).detach() for site in sites]
        flat = torch.stack(pairs, 1)
    settings = _settings(adapter.model, anatomy, "PREFIX_TUNING", method.tokens)
    settings |= {
        "num_layers": len(sites),
        "num_attention_heads": flat.shape[3],
        "token_dim": flat.shape[3] * flat.shape[4],
        "num_transformer_submodules": min(len(anatomy.stacks), 2),
        "prefix_projection": False,
    }
    return Written(settings, {KEY: flat.flatten(1)}, BEFORE)


def planned_prompt(model: nn.Module, anatomy: Anatomy, config: Mapping[str, Any]) -> Plan:
    """How to read a prompt."""
    tokens, modules = _sizes(config)
    encoder_only = len(anatomy.stacks) == 1 and not anatomy.causal
    method: PromptTuning | PTuning = PromptTuning(
        tokens=tokens, init="uniform", variant="hf" if encoder_only else "paper"
    )
    if config["peft_type"] == "P_TUNING" and not encoder_only:
        method = PTuning(tokens=tokens, encoder="none")
    width = anatomy.stacks[0].embed_width
    expected = {KEY: Entry(torch.float32, (tokens * modules, width))}

    def values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{next(p.key for p in adapter.placed if not p.head)}.P": tensors[KEY][:tokens]}

    return Plan(method, expected, values, BEFORE)


def planned_prefix(model: nn.Module, anatomy: Anatomy, config: Mapping[str, Any]) -> Plan:
    """How to read a prefix; a network that computed it is not needed any more."""
    tokens, modules = _sizes(config)
    sites = _attentions(anatomy)
    heads, slotted = sites[0].heads, len(anatomy.stacks) > 1
    assert heads is not None
    said = config.get("num_layers")
    if said is not None and said != len(sites):
        raise Refused(
            f"PEFT's prefix has {said!r:.40} layers, this model's {sites[0].stack} has {len(sites)} attentions."
        )
    if slotted != (modules == 2):
        raise Refused(f"PEFT's num_transformer_submodules={modules} is for a model of another kind than this one.")
    method = PrefixTuning(tokens=tokens, variant="hf" if slotted else "paper")
    shape = (len(sites), 2, heads.key, heads.width)
    expected = {KEY: Entry(torch.float32, (tokens, 2 * len(sites) * heads.key * heads.width))}

    def values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = tensors[KEY].unflatten(1, shape)
        if slotted:
            return {"shared.0.P": rows.permute(1, 2, 0, 3, 4)}
        pairs = [(site.name, rows[:, index]) for index, site in enumerate(sites)]
        keys = {f"{name}.keys": pair[:, 0] for name, pair in pairs}
        return keys | {f"{name}.values": pair[:, 1] for name, pair in pairs}

    return Plan(method, expected, values, BEFORE)


def _settings(model: nn.Module, anatomy: Anatomy, kind: str, tokens: int) -> dict[str, Any]:
    if task(model, anatomy) is None:
        raise Refused(
            f"PEFT puts virtual tokens before models of its own tasks only, and {type(model).__name__} is none."
        )
    heads = _attentions(anatomy)[0].heads
    assert heads is not None
    layers = len(_attentions(anatomy))
    return {"peft_type": kind, "num_virtual_tokens": tokens, "num_layers": layers, "num_attention_heads": heads.query}


def _attentions(anatomy: Anatomy) -> list[Site]:
    """The self-attentions of the last stack in order. Raises Refused where they are not one to a layer and alike."""
    stack = anatomy.stacks[-1]
    sites = [s for s in anatomy.sites if s.role == "attention" and s.stack == stack.name and not s.cross]
    shapes = {(site.heads.key, site.heads.width) if site.heads else None for site in sites}
    if stack.repeats > 1 or len(sites) != len(stack.layers) or len(shapes) != 1 or None in shapes:
        raise Refused("PEFT's virtual tokens need one attention to a layer, all alike; this model has another layout.")
    return sites


def _sizes(config: Mapping[str, Any]) -> tuple[int, int]:
    """Virtual tokens, and the sets of rows that PEFT allocates."""
    tokens, modules = config.get("num_virtual_tokens"), config.get("num_transformer_submodules")
    if modules is None:
        modules = 2 if config.get("task_type") == "SEQ_2_SEQ_LM" else 1
    if type(tokens) is not int or tokens < 1 or modules not in (1, 2):
        raise BadInput(f"PEFT's configuration has {tokens!r:.40} virtual tokens in {modules!r:.40} sets.")
    return tokens, modules
