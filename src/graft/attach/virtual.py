"""Virtual tokens and keys among a stack's inputs: concatenated without a cache, a computed prefix with one."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from graft.attach.call import Call, KeysValues
from graft.attach.hooks import first_of, narrow
from graft.attach.mode import in_mode
from graft.attach.proxy import in_dtype
from graft.attach.spot import Grafted, Spot
from graft.attach.tokens import Insertion, plan
from graft.errors import BadInput, NotApplied, Refused

LEADING = ("input_ids", "inputs_embeds", "hidden_states")


def padding_of(mask: Any) -> Tensor | None:
    """(batch, n) padding mask from whatever a stack is given; in a mask per query the last one sees all real tokens."""
    if isinstance(mask, dict):
        mask = mask.get("full_attention")
    if mask is None or mask.dim() == 2:
        return mask
    last = mask[:, 0, -1]
    return last if last.dtype == torch.bool else last == 0


def given(inputs: Mapping[str, Any]) -> Tensor | None:
    """What a stack is given to run on: ids, embeddings or hidden states, (batch, n, ...)."""
    return next((inputs[key] for key in LEADING if inputs.get(key) is not None), None)


def virtual(
    grafted: Grafted, spot: Spot, module: Any, call: Call, inputs: dict[str, Any], batch: int
) -> tuple[Call, dict[str, Any]]:
    """Positions moved by virtual keys; virtual tokens concatenated (no cache) or as a computed prefix (cache)."""
    assert spot.stack is not None
    lengths = {name: grafted.lengths(name, spot.stack.name) for name in call.used()}
    keys = {name: length for name, (length, _) in lengths.items()}
    tokens = {name: length for name, (_, length) in lengths.items() if length}
    deep = {name: layers for name in call.used() if (layers := grafted.deep(name, spot.stack.name))}
    late = {name: max(layers.values()) for name, layers in deep.items()}
    _fits(spot, inputs, max([0, *(n + m for n, m in lengths.values())]), max([0, *late.values()]))
    acting = {name for name, n in lengths.items() if any(n) or name in deep}
    inputs = _counted(spot, module, call, inputs, batch, acting)
    caching = spot.stack.causal and bool(tokens or deep) and _caching(grafted, spot, module, inputs)
    prefixes: dict[str, dict[str, KeysValues]] = {}
    for name, layers in deep.items():
        prefixes[name] = _deep(grafted, spot, module, call, name, layers, keys[name], caching)
        keys[name] += late[name]
    if tokens and caching:
        for name in tokens:
            front = prefixes.get(name, {})
            behind = _computed(grafted, spot, module, call, name, keys[name], front, late.get(name, 0))
            prefixes[name] = _joined(front, behind)
            keys[name] += tokens[name]
        call = replace(call, prefixes=prefixes)
    elif tokens:
        call, inputs = _concatenate(grafted, spot, module, replace(call, prefixes=prefixes), inputs, tokens, batch)
    call = replace(call, prefixes=prefixes)
    inputs = _lengthened(grafted, spot, call, inputs)
    call = replace(call, memory_mask=padding_of(inputs.get("encoder_attention_mask")))
    if not any(keys.values()):
        return call, inputs
    if not call.mixed:
        return replace(call, shift=keys[call.used()[0]], late=late.get(call.used()[0], 0)), inputs
    rows, device = call.per_row(batch), next(module.parameters()).device
    shift = torch.tensor([keys.get(name, 0) if name else 0 for name in rows], device=device)
    later = torch.tensor([late.get(name, 0) if name else 0 for name in rows], device=device)
    return replace(call, shift=shift, late=later), inputs


def _fits(spot: Spot, inputs: dict[str, Any], added: int, deep: int) -> None:
    """Refuse more tokens than the stack has learned positions for; a GPU would end the process instead."""
    like = given(inputs)
    if spot.room is not None and deep > spot.room:
        raise BadInput(
            f"{deep} virtual tokens at a layer are more than the {spot.room} positions of the "
            f"{spot.stack.name}. Use fewer."  # type: ignore[union-attr]
        )
    if not added or spot.room is None or like is None:
        return
    if like.shape[1] + added > spot.room:
        raise BadInput(
            f"{like.shape[1]} tokens and {added} virtual ones are more than the {spot.room} positions of the "
            f"{spot.stack.name}. Cut the rows to {max(spot.room - added, 0)} tokens, or use fewer virtual ones."  # type: ignore[union-attr]
        )


def _counted(
    spot: Spot, module: Any, call: Call, inputs: dict[str, Any], batch: int, names: set[str]
) -> dict[str, Any]:
    """Positions counted from each row's first real token where a mask is given and they are not.

    Else padding on the left would stand between virtual tokens and the real ones. Rows without any stay as they are.
    """
    mask, like = inputs.get("attention_mask"), given(inputs)
    takes = "position_ids" in inspect.signature(type(module).forward).parameters
    if not names or not takes or not spot.stack.causal or inputs.get("position_ids") is not None:  # type: ignore[union-attr]
        return inputs
    if not isinstance(mask, Tensor) or mask.dim() != 2 or like is None:
        return inputs
    counted = (mask.long().cumsum(-1) - 1).clamp(min=0)
    plain = torch.arange(mask.shape[1], device=mask.device).expand_as(counted)
    own = torch.tensor([name in names for name in call.per_row(batch)], device=mask.device)
    return {**inputs, "position_ids": torch.where(own[:, None], counted, plain)[:, -like.shape[1] :]}


def _caching(grafted: Grafted, spot: Spot, module: Any, inputs: dict[str, Any]) -> bool:
    """Whether this forward reads or fills a cache. Training never does: concatenation also trains when sharded.

    Where attention is out of reach there can be no computed prefix: no cache then, unless the caller insists on one.
    """
    asked = inputs.get("use_cache")
    possible = all(path in grafted.spots for path in _self_attentions(grafted, spot))
    if inputs.get("past_key_values") is not None or (asked and not module.training):
        if not possible:
            raise NotApplied(
                f"the attention of {spot.path or type(module).__name__} calls no attention interface of transformers, "
                "so virtual tokens cannot be used with a cache. Pass use_cache=False."
            )
        return True
    return possible and asked is None and not module.training and bool(module.config.use_cache)


def _self_attentions(grafted: Grafted, spot: Spot) -> list[str]:
    assert spot.stack is not None
    name = spot.stack.name
    return [s.path for s in grafted.anatomy.sites if s.role == "attention" and s.stack == name and not s.cross]


def _tokens(spot: Spot, call: Call, name: str, like: Tensor) -> Tensor:
    """All virtual tokens of one adapter, (n, embedding width), or (rows, n, embedding width) if rows have their own."""
    jobs = spot.work[name].tokens
    each = [in_dtype(job.part, like.dtype).tokens(job.told(call)).to(like.dtype) for job in jobs]
    rows = max([0, *(len(tokens) for tokens in each if tokens.dim() == 3)])
    return torch.cat([tokens.expand(rows, -1, -1) for tokens in each] if rows else each, -2)


def _states(
    grafted: Grafted, spot: Spot, module: Any, tokens: Iterable[str], inputs: Mapping[str, Any]
) -> Tensor | None:
    """What the stack makes of its rows without any adapter, in evaluation mode and without a graph; None where no part
    asks for it."""
    if not any(job.part.reads_row == "states" for name in tokens for job in spot.work[name].tokens):
        return None
    names, kept, grafted.names = grafted.names, grafted.kept, None
    try:
        with in_mode(module, training=False), torch.no_grad():
            return first_of(module(**inputs))
    finally:
        grafted.names, grafted.kept = names, kept


def _concatenate(
    grafted: Grafted, spot: Spot, module: Any, call: Call, inputs: dict[str, Any], tokens: dict[str, int], batch: int
) -> tuple[Call, dict[str, Any]]:
    """Longer embeddings, mask, positions and token types; the trunk's hook trims the output."""
    assert spot.stack is not None
    per_query = inputs.get("attention_mask")
    if per_query is not None and (isinstance(per_query, dict) or per_query.dim() != 2):
        raise Refused(
            "virtual tokens cannot be put in front of rows that come with a mask per query: pass a padding mask."
        )
    embeds = inputs.get("inputs_embeds")
    if embeds is None:
        grafted.call = call
        embeds = grafted.model.get_submodule(spot.stack.embed or "")(inputs["input_ids"])
    counts = tuple(tokens.get(name, 0) if name else 0 for name in call.per_row(batch))
    insertion = plan(call.mask, batch, embeds.shape[1], counts, embeds.device)
    rows = replace(call, embeds=embeds, states=_states(grafted, spot, module, tokens, inputs))
    virtual = _by_row(spot, rows, tokens, embeds, insertion.most)
    mask = call.mask
    if mask is None and insertion.source is not None:
        mask = torch.ones(batch, embeds.shape[1], dtype=torch.long, device=embeds.device)
    inputs = {**inputs, "input_ids": None, "inputs_embeds": insertion.join(embeds, virtual)}
    if mask is not None:
        inputs["attention_mask"] = mask = insertion.widen(mask, 1)
    if inputs.get("token_type_ids") is not None:
        inputs["token_type_ids"] = insertion.widen(inputs["token_type_ids"], 0)
    names = inspect.signature(type(module).forward).parameters
    if inputs.get("position_ids") is not None:
        inputs["position_ids"] = _moved(inputs["position_ids"].expand(batch, -1), insertion)
    elif insertion.source is not None and "position_ids" in names and mask is not None and spot.stack.causal:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    if "use_cache" in names:
        inputs["use_cache"] = False
    trims = all(job.part.trims for name in tokens for job in spot.work[name].tokens)
    kept = len(grafted.anatomy.stacks) > 1 and not spot.stack.causal
    longer = call.tokens + insertion.most
    return replace(call, mask=mask, inserted=insertion, trims=trims and not kept, tokens=longer), inputs


def _by_row(spot: Spot, call: Call, names: Iterable[str], embeds: Tensor, most: int) -> Tensor:
    """(batch, most, embedding width): the virtual tokens of each row's adapter, zeros after them."""
    batch, _, width = embeds.shape
    virtual = embeds.new_zeros(batch, most, width)
    for name in names:
        rows = call.rows_of(name, batch, embeds.device)
        own = _tokens(spot, call if rows is None else narrow(call, name, rows, batch), name, embeds)
        own = nn.functional.pad(own, (0, 0, 0, most - own.shape[-2]))
        own = own.expand(batch if rows is None else len(rows), -1, -1)
        virtual = own if rows is None else virtual.index_copy(0, rows, own)
    return virtual


def _moved(positions: Tensor, insertion: Insertion) -> Tensor:
    """(batch, length + most) from (batch, length): virtual tokens count from 0, real ones go on after their row's."""
    own = torch.arange(insertion.most, device=positions.device).expand(len(positions), -1)
    by = insertion.most if insertion.counts is None else insertion.counts[:, None]
    return insertion.join((positions + by)[..., None], own[..., None])[..., 0]


def _lengthened(grafted: Grafted, spot: Spot, call: Call, inputs: dict[str, Any]) -> dict[str, Any]:
    """A decoder's cross-attention mask, as long as the encoder's output with its virtual tokens."""
    memory, mask = inputs.get("encoder_hidden_states"), inputs.get("encoder_attention_mask")
    if memory is None:
        return inputs
    counts = tuple(grafted.lengths(name, "encoder")[1] if name else 0 for name in call.per_row(len(memory)))
    if not any(counts):
        return inputs
    length = memory.shape[1] - max(counts)
    if mask is None:
        mask = torch.ones(len(memory), length, dtype=torch.long, device=memory.device)
    if mask.shape[1] != length:
        return inputs
    insertion = plan(mask, len(memory), length, counts, memory.device)
    return {**inputs, "encoder_attention_mask": insertion.widen(mask, 1)}


def _computed(
    grafted: Grafted, spot: Spot, module: Any, call: Call, name: str, keys: int, front: dict[str, KeysValues], late: int
) -> dict[str, KeysValues]:
    """Keys and values of one adapter's virtual tokens, which in a causal stack never see a real one: once is enough."""
    assert spot.stack is not None
    if bool(call.past != 0) and name in grafted.prefixes:
        return grafted.prefixes[name]
    like = grafted.model.get_parameter(f"{spot.stack.embed}.weight")
    seen = {name: front} if front else {}
    alone = Call(name, call.tasks, spot.stack.name, causal=True, shift=keys, late=late, prefixes=seen, harvest={})
    virtual = _tokens(spot, alone, name, like)
    _run_alone(grafted, module, replace(alone, tokens=len(virtual)), virtual)
    grafted.prefixes[name] = _harvested(alone, name, _self_attentions(grafted, spot))
    return grafted.prefixes[name]


def _deep(
    grafted: Grafted, spot: Spot, module: Any, call: Call, name: str, layers: Mapping[str, int], before: int, kept: bool
) -> dict[str, KeysValues]:
    """Keys and values of one adapter's virtual tokens at `layers`: what each layer makes of its own, and of no other.

    They depend on nothing in a row, and what a layer gives at them is dropped, so running the stack on them alone is
    running it on rows with them in front. `kept`: for the tokens to come, which are generated with a cache.
    """
    assert spot.stack is not None
    stored = f"{name}/{spot.stack.name}"
    if kept and bool(call.past != 0) and stored in grafted.prefixes:
        return grafted.prefixes[stored]
    trains = torch.is_grad_enabled() and any(p.requires_grad for p in grafted.adapters[name].parameters())
    if trains and any(
        isinstance(p, DTensor) for path in layers for p in grafted.model.get_submodule(path).parameters()
    ):
        raise Refused(
            f"{name}: virtual tokens at layers cannot train in a sharded model, whose layers run once. Train on one "
            "device, or with copies of the model on several (DDP)."
        )
    like = grafted.model.get_parameter(f"{spot.stack.embed}.weight")
    most = max(layers.values())
    alone = Call(name, call.tasks, spot.stack.name, spot.stack.causal, most, shift=before, harvest={}, deep=True)
    _run_alone(grafted, module, alone, like.new_zeros(most, spot.stack.embed_width))
    own = {p: n for p in _self_attentions(grafted, spot) for layer, n in layers.items() if p.startswith(f"{layer}.")}
    whole = _harvested(alone, name, own)
    found = {path: (keys[:, :, -own[path] :], values[:, :, -own[path] :]) for path, (keys, values) in whole.items()}
    if trains and not any(values.requires_grad for _, values in found.values()):
        raise Refused(
            f"{name}: re-entrant checkpointing would leave its virtual tokens without gradients. "
            "Switch checkpointing on with use_reentrant=False."
        )
    if kept:
        grafted.prefixes[stored] = found
    return found


def _run_alone(grafted: Grafted, module: Any, alone: Call, virtual: Tensor) -> None:
    """Run a stack on virtual tokens (n, embedding width) and nothing else."""
    grafted.call = alone
    try:
        caches = "use_cache" in inspect.signature(type(module).forward).parameters
        module(inputs_embeds=virtual[None], **({"use_cache": False} if caches else {}))
    finally:
        grafted.call = None


def _harvested(alone: Call, name: str, wanted: Iterable[str]) -> dict[str, KeysValues]:
    """The keys and values of the attentions at `wanted`; NotApplied where one never ran."""
    assert alone.harvest is not None
    if missing := [path for path in wanted if path not in alone.harvest]:
        raise NotApplied(
            f"{name}: the attention at {missing[0]} never ran on the virtual tokens. Pass use_cache=False."
        )
    return {path: alone.harvest[path] for path in wanted}


def _joined(front: Mapping[str, KeysValues], behind: Mapping[str, KeysValues]) -> dict[str, KeysValues]:
    """Two prefixes as one."""
    both = {
        path: (torch.cat((front[path][0], keys), 2), torch.cat((front[path][1], values), 2))
        for path, (keys, values) in behind.items()
        if path in front
    }
    return {**front, **behind, **both}
