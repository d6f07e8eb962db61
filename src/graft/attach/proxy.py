"""A stand-in for a module that answers some parameters with other tensors, so that its own `forward` uses them."""

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from graft.method import Part


class Proxy:
    """Reads like `module`, except for the attributes in `values`. `type(module).forward(proxy, x)` runs on them."""

    def __init__(self, module: nn.Module, values: Mapping[str, Any]) -> None:
        self.__dict__["_module"] = module
        self.__dict__["_values"] = dict(values)

    def __getattr__(self, name: str) -> Any:
        module, values = self.__dict__["_module"], self.__dict__["_values"]
        if name in values:
            return values[name]
        found = getattr(type(module), name, None)
        # A method of the class runs on the proxy too, so that it reads the replaced tensors.
        return MethodType(found, self) if isinstance(found, FunctionType) else getattr(module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    def replace(self, name: str, value: Tensor) -> None:
        """Answer `value` for `name` from now on."""
        self.__dict__["_values"][name] = value

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward, on the replaced parameters."""
        return type(self.__dict__["_module"]).forward(self, *args, **kwargs)


class Likeness(Proxy):
    """A proxy that passes for its module's class, for a forward that says `super().forward(...)`."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.__dict__["_module"])


def in_dtype(part: nn.Module, dtype: torch.dtype) -> Any:
    """The part with its parameters cast for one call: fp32 masters, arithmetic in the base's precision.

    Casting the small parameters instead of the activations is what keeps an adapter cheap over a bf16 base.
    """
    if not dtype.is_floating_point:
        return part
    cast: dict[str, Any] = {n: t.to(dtype) for n, t in part.named_parameters(recurse=False) if t.dtype != dtype}
    inner = {n: in_dtype(own, dtype) for n, own in part.named_children() if isinstance(own, Part) and own.verbs()}
    cast |= {n: own for n, own in inner.items() if isinstance(own, Proxy)}  # parts that it runs itself, likewise
    return Proxy(part, cast) if cast else part
