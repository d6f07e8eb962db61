"""Which modules of the base stay in evaluation mode while an adapter trains, so that they have no dropout.

Frozen layers that no gradient goes through have none in any case: what they give then depends on the row alone, whether
it is computed in every epoch or once (`graft.training.frozen`).
"""

from torch import nn

from graft.attach import Adapter
from graft.attach.skip import frozen, modules


def still(adapter: Adapter, dropout: bool) -> list[nn.Module]:
    """The modules that stay still; with `dropout` off, all of the base but what checkpoints activations in training."""
    if not dropout:
        return [
            module
            for path, module in adapter.model.named_modules()
            if "graft" not in path.split(".") and not hasattr(module, "gradient_checkpointing")
        ]
    found = frozen(adapter)
    return [] if found is None else list(modules(adapter, found))
