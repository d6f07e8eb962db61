"""Gradient checkpointing: a segment that runs again in backward sees the Call of its own forward, not today's.

Without this, switching adapters between forward and backward trains the wrong one, silently.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from graft.anatomy.site import Stack
from graft.attach.call import Call
from graft.attach.spot import Grafted
from graft.errors import Refused


class Bound:
    """A checkpointing function that hands every segment the Call in force when its forward ran."""

    def __init__(self, inner: Callable[..., Any], grafted: Grafted) -> None:
        self.inner = inner
        self.grafted = grafted

    def __call__(self, segment: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.inner(Segment(segment, self.grafted, self.grafted.call), *args, **kwargs)


class Segment:
    """One checkpointed piece of one forward."""

    def __init__(self, inner: Callable[..., Any], grafted: Grafted, call: Call | None) -> None:
        self.inner = inner
        self.grafted = grafted
        self.call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before, self.grafted.call = self.grafted.call, self.call
        try:
            return self.inner(*args, **kwargs)
        finally:
            self.grafted.call = before


def bind(grafted: Grafted, module: nn.Module, stack: Stack) -> None:
    """Wrap the stack's checkpointing functions, once; models set them anew whenever checkpointing is switched on."""
    owners: list[Any] = [module, *(grafted.model.get_submodule(path) for path in stack.layers)]
    for owner in owners:
        function = owner.__dict__.get("_gradient_checkpointing_func")
        if function is not None and not isinstance(function, Bound):
            owner._gradient_checkpointing_func = Bound(function, grafted)


def unbind(model: nn.Module) -> None:
    """Give every module its own checkpointing function back."""
    owner: Any
    for owner in model.modules():
        function = owner.__dict__.get("_gradient_checkpointing_func")
        if isinstance(function, Bound):
            owner._gradient_checkpointing_func = function.inner


def checkpoints_activations(model: nn.Module) -> bool:
    """Whether any module of the model recomputes its activations in backward."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def checkpoint_activations(model: Any, on: bool) -> None:
    """Switch the recomputing of activations on or off, by the name this version of transformers has for it.

    Raises Refused for a model that cannot.
    """
    if not model.supports_gradient_checkpointing:
        raise Refused(f"{type(model).__name__} cannot recompute its activations: leave --checkpointing off.")
    kind = "activation" if hasattr(PreTrainedModel, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(model, f"{kind}_checkpointing_enable")(**{f"{kind}_checkpointing_kwargs": {"use_reentrant": False}})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()
