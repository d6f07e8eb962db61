"""Virtual keys and values: one attention function around the model's own, so that they never enter a cache.

Works wherever attention is called through transformers' attention interface. Registered once per implementation under
`graft_sdpa`, `graft_eager`; a module without a spot, or a call without keys, gets exactly the model's own function.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from graft.anatomy.site import Site
from graft.attach.call import Call
from graft.attach.proxy import in_dtype
from graft.attach.spot import Grafted, Spot
from graft.errors import Refused

PREFIX = "graft_"
SUPPORTED = ("sdpa", "eager")


def interfaced(module: nn.Module) -> bool:
    """Whether an attention calls transformers' attention interface: its file imports the table of implementations."""
    return "ALL_ATTENTION_FUNCTIONS" in vars(sys.modules[type(module).__module__])


def reroute(grafted: Grafted, sites: list[Site]) -> None:
    """Make the attention modules at `sites` call `attend`; remembered on the record so that detaching restores it."""
    for site in sites:
        config = site.module.config
        implementation = config._attn_implementation
        if implementation.startswith(PREFIX):
            continue
        if implementation not in SUPPORTED:
            raise Refused(
                f"{site.path}: virtual keys are not tested with attention {implementation!r}. "
                "Load the model with attn_implementation='sdpa' or 'eager'."
            )
        register(implementation)
        grafted.implementations[id(config)] = (config, implementation)
        config._attn_implementation = PREFIX + implementation


def restore(grafted: Grafted) -> None:
    """Give every configuration its own attention implementation back."""
    config: Any
    for config, implementation in grafted.implementations.values():
        config._attn_implementation = implementation
    grafted.implementations.clear()


def register(implementation: str) -> None:
    """Register the wrapper of one implementation with transformers, and a mask function that spells causality out."""
    ALL_ATTENTION_FUNCTIONS.register(PREFIX + implementation, partial(attend, implementation))
    mask = ALL_MASK_ATTENTION_FUNCTIONS[implementation]
    ALL_MASK_ATTENTION_FUNCTIONS.register(PREFIX + implementation, partial(explicit_mask, mask))


def explicit_mask(mask: Callable[..., Tensor | None], *args: Any, **kwargs: Any) -> Tensor | None:
    """The model's own mask, never left out for a causal kernel: keys are about to be put in front."""
    return mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def attend(
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention with the spot's virtual keys and values in front. Tensors are (batch, heads, n, width)."""
    if implementation == "eager":
        run = sys.modules[type(module).__module__].eager_attention_forward
    else:
        run = ALL_ATTENTION_FUNCTIONS[implementation]
    spot: Spot | None = module._modules.get("graft")  # type: ignore[assignment]
    if spot is None:
        return run(module, query, key, value, attention_mask, **options)
    call = spot.grafted.now()
    spot.grafted.ran(call.used(), spot.path)
    if call.harvest is not None:
        call.harvest[spot.path] = (key, value)
    prefix = _prefix(spot, call, key)
    if prefix is not None:
        keys, values, visible = prefix
        attention_mask = _mask(module, call, query, key, visible, attention_mask, options.get("sliding_window"))
        if options.get("position_bias") is not None:
            bias = options["position_bias"]
            front = _relative_bias(module, call, bias, keys.shape[2])
            options["position_bias"] = torch.cat((front.expand(*bias.shape[:3], -1), bias), -1)
        key, value = torch.cat((keys, key), 2), torch.cat((values, value), 2)
    output, weights = run(module, query, key, value, attention_mask, **options)
    return _gated(spot, call, query, output, options.get("scaling")), weights


def _prefix(spot: Spot, call: Call, key: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Keys, values (batch, heads, n, width) and which of them each row sees (batch, n); None without any."""
    batch = len(key)
    if not call.mixed:
        if call.names is None:
            return None
        keys, values = _of_adapter(spot, call, call.names, key)  # type: ignore[arg-type]
        if keys.shape[1] == 0:
            return None
        visible = torch.ones(batch, keys.shape[1], dtype=torch.bool, device=key.device)
        return keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), visible
    found = {name: _of_adapter(spot, call, name, key) for name in call.used()}
    longest = max([0, *(keys.shape[1] for keys, _ in found.values())])
    if longest == 0:
        return None
    empty = key.new_zeros(key.shape[1], 0, key.shape[3])
    rows = [found.get(name, (empty, empty)) if name else (empty, empty) for name in call.per_row(batch)]
    pad = [(0, 0, longest - keys.shape[1], 0) for keys, _ in rows]
    visible = torch.tensor([[j >= longest - keys.shape[1] for j in range(longest)] for keys, _ in rows])
    return (
        torch.stack([nn.functional.pad(keys, by) for (keys, _), by in zip(rows, pad, strict=True)]),
        torch.stack([nn.functional.pad(values, by) for (_, values), by in zip(rows, pad, strict=True)]),
        visible.to(key.device),
    )


def _of_adapter(spot: Spot, call: Call, name: str, key: Tensor) -> tuple[Tensor, Tensor]:
    """One adapter's ungated keys and values at this attention, (heads, n, width), learned ones before computed ones."""
    pairs = []
    for job in spot.work[name].keys if name in spot.work else ():
        if "keys_values" in job.part.verbs():
            keys, values, gate = in_dtype(job.part, key.dtype).keys_values(job.site, call)
            if gate is None:
                pairs.append((keys.transpose(0, 1), values.transpose(0, 1)))
    if spot.path in call.prefixes.get(name, {}):
        keys, values = call.prefixes[name][spot.path]
        pairs.append((keys[0], values[0]))
    if not pairs:
        empty = key.new_zeros(key.shape[1], 0, key.shape[3])
        return empty, empty
    return (
        torch.cat([keys.to(key.dtype) for keys, _ in pairs], 1),
        torch.cat([values.to(key.dtype) for _, values in pairs], 1),
    )


def _mask(
    module: nn.Module, call: Call, query: Tensor, key: Tensor, visible: Tensor, mask: Tensor | None, window: int | None
) -> Tensor | None:
    """The attention mask with columns for the virtual keys in front, in whatever form the model uses."""
    length, seen = query.shape[2], key.shape[2]
    front = visible[:, None, None, :].expand(-1, 1, length, -1)
    if window is not None:
        # Key j of n stands n - j places before the row's first real token, whatever padding precedes that.
        places = torch.arange(length, device=query.device)[None] + call.past
        if call.mask is not None:
            lead = (call.mask.cumsum(-1) == 0).sum(-1)
            places = places - lead.repeat_interleave(len(query) // len(lead))[:, None]
        n = visible.shape[1]
        distance = places[:, :, None] + n - torch.arange(n, device=query.device)
        front = front & (distance < window)[:, None]
    if mask is None:
        if not getattr(module, "is_causal", False) or length == 1:
            if bool(front.all()):
                return None
            mask = torch.ones(len(query), 1, length, seen, dtype=torch.bool, device=query.device)
        else:
            mask = torch.ones(length, seen, dtype=torch.bool, device=query.device).tril()[None, None]
            mask = mask.expand(len(query), -1, -1, -1)
    if mask.dtype != torch.bool:
        front = torch.zeros_like(front, dtype=mask.dtype).masked_fill(~front, torch.finfo(mask.dtype).min)
    mask = mask[..., :seen].expand(len(query), -1, -1, -1)
    return torch.cat((front.expand(-1, mask.shape[1], -1, -1), mask), -1)


def _relative_bias(module: nn.Module, call: Call, bias: Tensor, n: int) -> Tensor:
    """T5's bias for the virtual keys: their real buckets at −n…−1 in self-attention, nothing in cross-attention."""
    owner = _bias_owner(module)
    if owner is None:
        return bias.new_zeros(1, bias.shape[1], bias.shape[2], n)
    length = bias.shape[2]
    query = torch.arange(length, device=bias.device)[:, None] + call.past
    bucket = owner._relative_position_bucket(
        torch.arange(-n, 0, device=bias.device)[None] - query,
        bidirectional=not owner.is_decoder,
        num_buckets=owner.relative_attention_num_buckets,
        max_distance=owner.relative_attention_max_distance,
    )
    return owner.relative_attention_bias(bucket).permute(2, 0, 1)[None].to(bias.dtype)


def _bias_owner(module: nn.Module) -> Any:
    """The attention that owns the relative bias this one is given: the first self-attention of its stack."""
    spot: Spot = module.graft  # type: ignore[assignment]
    site = next(s for s in spot.grafted.anatomy.sites if s.role == "attention" and s.path == spot.path)
    if site.cross:
        return None
    for other in spot.grafted.anatomy.sites:
        if other.role == "attention" and other.stack == site.stack and not other.cross:
            candidate = spot.grafted.model.get_submodule(other.path)
            if getattr(candidate, "relative_attention_bias", None) is not None:
                return candidate
    return None


def _gated(spot: Spot, call: Call, query: Tensor, output: Tensor, scaling: float | None) -> Tensor:
    """Add gate · softmax(q kᵀ) v for gated keys, which have their own softmax. `output` is (batch, n, heads, width)."""
    for name in call.used():
        for job in spot.work[name].keys if name in spot.work else ():
            if "keys_values" not in job.part.verbs():
                continue
            keys, values, gate = in_dtype(job.part, query.dtype).keys_values(job.site, call)
            if gate is None:
                continue
            groups = query.shape[1] // keys.shape[1]
            keys, values = (t.transpose(0, 1).repeat_interleave(groups, 0).to(query.dtype) for t in (keys, values))
            scores = query @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
            extra = (scores.softmax(-1) @ values * gate.to(query.dtype)[:, None, None]).transpose(1, 2)
            rows = call.rows_of(name, len(output), output.device)
            output = output + extra if rows is None else output.index_add(0, rows, extra[rows])
    return output
