"""The hooks around a whole stack: they make the Call, put virtual tokens in, and take them out again."""

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from graft.attach import around, recompute
from graft.attach.call import Call
from graft.attach.spot import Grafted, Spot
from graft.attach.tokens import Insertion
from graft.attach.virtual import given, padding_of, virtual
from graft.errors import BadInput, NotApplied


def begin(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Before a stack runs: one immutable Call for all that follows, and virtual tokens among the inputs."""
    spot: Spot = module.graft  # type: ignore[assignment]
    grafted, stack = spot.grafted, spot.stack
    assert stack is not None
    if grafted.call is not None and grafted.call.harvest is not None:
        return None
    inputs = named_inputs(module, args, kwargs)
    if not stack.causal:
        grafted.kept = {}  # what an encoder left for its decoder before has served, and may hold a graph
    call = Call(
        names=grafted.names, tasks=grafted.tasks, stack=stack.name, causal=stack.causal,
        cache=inputs.get("past_key_values"), kept=grafted.kept,
    )  # fmt: skip
    lead = given(inputs)
    if lead is None:
        lead = next(v for v in inputs.values() if isinstance(v, torch.Tensor))
    batch = len(lead)
    if call.mixed and batch % len(call.names or ()):
        raise BadInput(
            f"{len(call.names or ())} adapter names for a batch of {batch} rows: give graft.use one name per row."
        )
    if isinstance(call.tasks, tuple) and batch % len(call.tasks):
        raise BadInput(f"{len(call.tasks)} tasks for a batch of {batch} rows: give graft.use one per row.")
    past = call.cache.get_seq_length() if call.cache is not None else 0
    call = replace(call, past=past, mask=padding_of(inputs.get("attention_mask")), tokens=lead.shape[1])
    recompute.bind(grafted, module, stack)
    if call.used():
        if not lead.is_meta:
            _refuse_empty(grafted, call)
        call, inputs = virtual(grafted, spot, module, call, around.without_cache(grafted, module, call, inputs), batch)
    grafted.call = call
    return (), inputs


def _refuse_empty(grafted: Grafted, call: Call) -> None:
    """Refuse parts without numbers, as offloading leaves them: a forward would give anything."""
    for name in call.used():
        placed = grafted.adapters[name].placed
        if gone := [p.key for p in placed if any(t.is_meta for t in p.part.parameters(recurse=False))]:
            raise NotApplied(
                f"adapter {name!r} was offloaded with the model after it was attached: {len(gone)} of its parts "
                f"({gone[0]}, ...) are empty. Load the model without offloading, and attach or load the adapter again."
            )


def shorten(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """Before a stack's trunk runs: where the stack makes fewer states of its input, as of sound, take their mask."""
    spot: Spot = module.graft  # type: ignore[assignment]
    call, mask = spot.grafted.now(), named_inputs(module, args, kwargs).get("attention_mask")
    if call.mask is not None and isinstance(mask, torch.Tensor) and mask.dim() == 2 and mask.shape != call.mask.shape:
        spot.grafted.call = replace(call, mask=mask)


def finish(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
    """After a stack's trunk ran: cut the outputs at virtual tokens off again."""
    spot: Spot = module.graft  # type: ignore[assignment]
    call = spot.grafted.now()
    if call.harvest is not None:
        return None
    # The head still runs: it needs the names, and nothing that would keep caches and activations alive.
    spot.grafted.call = replace(call, cache=None, prefixes={}, captured={}, narrowed={}, carried={})
    if call.inserted is None or not call.trims:
        return None
    return _trimmed(output, call.inserted)


def _trimmed(output: Any, insertion: Insertion) -> Any:
    if isinstance(output, torch.Tensor):
        return insertion.trim(output)
    if isinstance(output, tuple):
        return (insertion.trim(output[0]), *output[1:])
    output["last_hidden_state"] = insertion.trim(output["last_hidden_state"])
    if output.get("hidden_states") is not None:
        output["hidden_states"] = tuple(insertion.trim(hidden) for hidden in output["hidden_states"])
    return output


def named_inputs(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The module's arguments by name."""
    names = [name for name in inspect.signature(type(module).forward).parameters if name != "self"]
    return {**dict(zip(names, args, strict=False)), **kwargs}
