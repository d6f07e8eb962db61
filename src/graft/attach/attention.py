"""Virtual keys and values: one attention function around the model's own, so that they never enter a cache.

Works wherever attention is called through transformers' attention interface. Registered once per implementation under
`graft_sdpa`, `graft_eager`; a module without a spot, or a call without keys, gets exactly the model's own function.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from graft.anatomy.site import Site
from graft.attach.call import Call
from graft.attach.hooks import narrow
from graft.attach.proxy import in_dtype
from graft.attach.spot import Grafted, Spot
from graft.errors import Refused

PREFIX = "graft_"
SUPPORTED = ("sdpa", "eager")
Given = tuple[Tensor, Tensor, Tensor | None]


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
    given = {name: _given(spot, call, name, key) for name in call.used()}
    front = _front(spot, call, given, query, key)
    asked, scaling = query, options.get("scaling")
    if front is not None:
        attention_mask = _mask(module, call, query, key, front.visible, attention_mask, options.get("sliding_window"))
        if options.get("position_bias") is not None:
            bias = options["position_bias"]
            ahead = _relative_bias(module, call, bias, front.keys.shape[2])
            options["position_bias"] = torch.cat((ahead.expand(*bias.shape[:3], -1), bias), -1)
        key, value = torch.cat((front.keys, key), 2), torch.cat((front.values, value), 2)
        if front.gates:
            asked, key, value = front.spread(query, key, value)
            options["scaling"] = query.shape[-1] ** -0.5 if scaling is None else scaling
    output, weights = run(module, asked, key, value, attention_mask, **options)
    if front is not None:
        output = front.gathered(output)
    return _gated(call, given, query, output, scaling), weights


@dataclass(frozen=True)
class Front:
    """What stands in front of the keys of an attention: virtual keys and values (batch, heads, n, width), which of them
    each row sees (batch, n), which gate each is under, 0 for none (batch, n), and the gates (batch, queries).

    A gate multiplies keys and values for each query, which is to multiply the query and the output instead. So keys
    under different gates have shares of a greater width, and every share of the query and the output its gate.
    """

    keys: Tensor
    values: Tensor
    visible: Tensor
    under: Tensor
    gates: tuple[Tensor, ...] = ()

    def spread(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, keys and values (batch, heads, n, width), with a share of the width for each gate."""
        under = nn.functional.pad(self.under, (0, key.shape[2] - self.under.shape[1]))[:, None, :, None]
        key, value = (torch.cat([t * (under == i) for i in range(len(self.gates) + 1)], -1) for t in (key, value))
        return torch.cat([query, *(query * gate[:, None, :, None] for gate in self.gates)], -1), key, value

    def gathered(self, output: Tensor) -> Tensor:
        """The output (batch, queries, heads, width) of its shares."""
        whole, *shares = output.chunk(len(self.gates) + 1, -1)
        return sum((share * gate[..., None, None] for share, gate in zip(shares, self.gates, strict=True)), whole)


def _given(spot: Spot, call: Call, name: str, key: Tensor) -> list[Given]:
    """What one adapter's parts at this attention give: keys and values ([rows,] n, heads, width), and a gate."""
    given = []
    for job in spot.work[name].awake().keys if name in spot.work else ():
        own_rows = job.part.reads_input or isinstance(call.tasks, tuple)
        rows = call.rows_of(name, len(key), key.device) if own_rows else None
        own = call if rows is None else narrow(call, name, rows, len(key))
        given.append(in_dtype(job.part, key.dtype).keys_values(job.site, job.told(own)))
    return given


def _front(spot: Spot, call: Call, given: Mapping[str, list[Given]], query: Tensor, key: Tensor) -> Front | None:
    """What each row has in front of its keys; None where none has any."""
    found = {name: _of_adapter(spot, call, name, given[name], key) for name in call.used()}
    longest = max([0, *(front.keys.shape[2] for front in found.values())])
    if longest == 0:
        return None
    batch = len(key)
    if not call.mixed:
        front = found[call.used()[0]]
        keys, values = (_each(t, batch) for t in (front.keys, front.values))
        return Front(keys, values, front.visible.expand(batch, -1), front.under.expand(batch, -1), front.gates)
    empty = key.new_zeros(key.shape[1], 0, key.shape[3])
    none = torch.zeros(0, dtype=torch.int, device=key.device)
    names = call.per_row(batch)
    shares = {name: iter(_rows_of(front, names.count(name))) for name, front in found.items()}
    rows = [next(shares[name]) if name in shares else Front(empty, empty, none.bool(), none) for name in names]
    pad = [longest - row.keys.shape[1] for row in rows]
    gates = [query.new_ones(batch, query.shape[2]) for _ in range(max(len(front.gates) for front in found.values()))]
    for name, front in found.items():
        at = call.rows_of(name, batch, key.device)
        for i, gate in enumerate(front.gates):
            gates[i] = gates[i].index_copy(0, at, gate)  # type: ignore[arg-type]
    return Front(
        torch.stack([nn.functional.pad(row.keys, (0, 0, by, 0)) for row, by in zip(rows, pad, strict=True)]),
        torch.stack([nn.functional.pad(row.values, (0, 0, by, 0)) for row, by in zip(rows, pad, strict=True)]),
        torch.stack([nn.functional.pad(row.visible, (by, 0)) for row, by in zip(rows, pad, strict=True)]),
        torch.stack([nn.functional.pad(row.under, (by, 0)) for row, by in zip(rows, pad, strict=True)]),
        tuple(gates),
    )


def _each(tensor: Tensor, rows: int) -> Tensor:
    """(rows, ...) of what all rows share, (1, ...), or of what each has that is repeated for beams."""
    times = rows // len(tensor)
    return tensor.expand(rows, *tensor.shape[1:]) if len(tensor) == 1 else tensor.repeat_interleave(times, 0)


def _rows_of(front: Front, rows: int) -> list[Front]:
    """What each of an adapter's rows has: keys and values (heads, n, width)."""
    pairs = zip(_each(front.keys, rows), _each(front.values, rows), strict=True)
    return [Front(keys, values, front.visible, front.under, front.gates) for keys, values in pairs]


def _of_adapter(spot: Spot, call: Call, name: str, given: list[Given], key: Tensor) -> Front:
    """One adapter's keys and values in the common softmax, learned ones before computed ones: (1, heads, n, width), or
    of each row."""
    empty = key.new_zeros(1, key.shape[1], 0, key.shape[3])
    keys, values, under, gates = [empty], [empty], [0], []
    for own_keys, own_values, gate in given:
        if gate is not None and gate.dim() == 1:
            continue
        if gate is not None:
            gates.append(gate.to(key.dtype))
        for kept, own in ((keys, own_keys), (values, own_values)):
            kept.append((own if own.dim() == 4 else own[None]).transpose(1, 2).to(key.dtype))
        under.append(0 if gate is None else len(gates))
    if spot.path in call.prefixes.get(name, {}):
        computed_keys, computed_values = call.prefixes[name][spot.path]
        keys.append(computed_keys[:1].to(key.dtype))
        values.append(computed_values[:1].to(key.dtype))
        under.append(0)
    number = [gate for gate, own in zip(under, keys, strict=True) for _ in range(own.shape[2])]
    at = torch.tensor(number, dtype=torch.int, device=key.device)
    rows = max(len(each) for each in keys)
    whole_keys, whole_values = (torch.cat([_each(each, rows) for each in kept], 2) for kept in (keys, values))
    return Front(whole_keys, whole_values, torch.ones_like(at, dtype=torch.bool), at, tuple(gates))


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


def _gated(
    call: Call, given: Mapping[str, list[Given]], query: Tensor, output: Tensor, scaling: float | None
) -> Tensor:
    """Add gate · softmax(q kᵀ) v for keys with a softmax of their own. `output` is (batch, n, heads, width)."""
    for name, found in given.items():
        for keys, values, gate in found:
            if gate is None or gate.dim() > 1:
                continue
            groups = query.shape[1] // keys.shape[1]
            keys, values = (t.transpose(0, 1).repeat_interleave(groups, 0).to(query.dtype) for t in (keys, values))
            scores = query @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
            extra = (scores.softmax(-1) @ values * gate.to(query.dtype)[:, None, None]).transpose(1, 2)
            rows = call.rows_of(name, len(output), output.device)
            output = output + extra if rows is None else output.index_add(0, rows, extra[rows])
    return output
