"""Virtual keys come before a row's real tokens, so real positions move by as many: where positions enter a stack."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graft.anatomy.site import Stack
from graft.attach.proxy import Likeness, Proxy


def modules(model: nn.Module, stack: Stack) -> dict[str, nn.Module]:
    """The stack's own modules that turn positions into something: rotary tables and learned embeddings, by path.

    None where it reads no tokens: patches and frames have places of their own, all of them taken.
    """
    if stack.embed is None:
        return {}
    root = model.get_submodule(stack.path)
    found = {}
    for name, module in root.named_modules():
        path = f"{stack.path}.{name}" if stack.path else name
        if any(path == layer or path.startswith(f"{layer}.") for layer in stack.layers):
            continue
        short = name.rpartition(".")[2]
        rotary = any(buffer.endswith("inv_freq") for buffer, _ in module.named_buffers(recurse=False))
        learned = isinstance(module, nn.Embedding) and ("pos" in short or short == "wpe")
        if rotary or learned:
            found[path] = module
    return found


def room(found: Mapping[str, nn.Module]) -> int | None:
    """How many positions learned embeddings have; None where positions are computed, which has no end."""
    sizes = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for module in found.values()
        if isinstance(module, nn.Embedding)
    ]
    return min(sizes, default=None)


def shift_rotary(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Before a rotary table is read: move `position_ids` by the virtual keys in front of each row."""
    shift = module.graft.grafted.now().shift
    if isinstance(shift, int) and shift == 0:
        return None
    by = shift if isinstance(shift, int) else shift[:, None]
    if "position_ids" in kwargs:
        return args, {**kwargs, "position_ids": kwargs["position_ids"] + by}
    return (args[0], args[1] + by, *args[2:]), kwargs


def shift_learned(module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
    """After learned positions were looked up: look them up again in a table that starts `shift` entries later.

    Moving the table, not the indices, serves every calling convention (indices, shapes, masks) alike.
    """
    call = module.graft.grafted.now()
    shift = call.shift - call.late
    if isinstance(shift, int):
        return None if shift == 0 else _later(module, shift, args, kwargs)
    by_shift = {n: _later(module, n, args, kwargs) for n in set(shift.tolist())}
    rows = []
    for row, n in enumerate(shift.tolist()):
        out = by_shift[n] if by_shift[n].dim() == 3 else by_shift[n][None]
        rows.append(out[row if len(out) == len(shift) else 0])
    return torch.stack(rows)


def _later(module: Any, shift: int, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    kind = Proxy if type(module) is nn.Embedding else Likeness
    return kind(module, {"weight": module.weight[shift:]}).run(*args, **kwargs)
