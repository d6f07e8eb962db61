"""Counting floating point operations by torch's own table of them.

Torch's counter follows modules too, by hooks in the backward pass that a backward within it (a reversible base) breaks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Flops(TorchDispatchMode):
    """Within the `with`, counts what matrix products, convolutions and attention take: `total`."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        counted: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if counted is None and func is not torch.ops.prim.device.default:
            with self:  # what is made of other operations is counted by these
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self.total += counted(*args, **kwargs, out_val=out) if counted is not None else 0
        return out
