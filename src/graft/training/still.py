"""Which modules of the base stay in evaluation mode while an adapter trains, so that they have no dropout.

Frozen layers that no gradient goes through have none in any case: what they give then depends on the row alone, whether
it is computed in every epoch or once (`graft.training.frozen`). A stack whose embeddings and output share one dropout,
as T5's, has none at its output either.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from graft.attach import Adapter
from graft.attach.skip import frozen, modules


def still(adapter: Adapter, dropout: bool) -> list[nn.Module]:
    """The modules that stay still; with `dropout` off, all of the base but what checkpoints activations in training."""
    if not dropout:
        return [module for module in _base(adapter.model) if not _checkpoints(module)]
    found = frozen(adapter)
    if found is None:
        return []
    stack = adapter.model.get_submodule(found.stack.path)
    return [*modules(adapter, found), *(child for child in stack.children() if isinstance(child, nn.Dropout))]


@contextmanager
def undropped(model: nn.Module) -> Iterator[None]:
    """Within the `with`, what checkpoints activations, and so has to be in training mode, drops nothing by itself."""
    shares = [
        (module, name, value)
        for module in _base(model)
        for name, value in vars(module).items()
        if _checkpoints(module) and "drop" in name and "layer" not in name and isinstance(value, float)
    ]
    for module, name, _ in shares:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in shares:
            setattr(module, name, value)


def _base(model: nn.Module) -> list[nn.Module]:
    return [module for path, module in model.named_modules() if "graft" not in path.split(".")]


def _checkpoints(module: nn.Module) -> bool:
    return bool(getattr(module, "gradient_checkpointing", False))
