"""The tensors of an adapter as they are stored and filled again: parts by key, and tensors trained in place."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from graft.anatomy import select
from graft.attach import Adapter, anatomy_of, attach, detach, grafted
from graft.checkpoint.safe import Entry
from graft.errors import BadInput
from graft.method import Method

IN_PLACE = "base."
SLACK = 2**18


def stored(adapter: Adapter) -> dict[str, Tensor]:
    """Live tensors by name: `decoder.3.q.A`, `head.head.score.weight`, `base.model.layers.3.mlp.up_proj.weight`."""
    found = {
        f"{key}.{name}": tensor
        for key, part in adapter.deployed().items()
        for name, tensor in part.state_dict().items()
    }
    for path in adapter.trained:
        live = adapter.model.get_parameter(path).data if adapter.tuned_in_place else adapter.originals[path]
        found[IN_PLACE + path] = live
    return found


def fill(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors of the same names and shapes into a freshly attached adapter."""
    with torch.no_grad():
        for name, live in stored(adapter).items():
            live.copy_(tensors[name])


@contextmanager
def attaching(model: nn.Module, method: Method, name: str, head: bool) -> Iterator[Adapter]:
    """Attach for loading. On an error within, the model is as it was; the random numbers drawn are given back."""
    before = record.names if (record := grafted(model)) else None
    with torch.random.fork_rng(devices=[]):
        adapter = attach(model, method, name, head=head)
    try:
        yield adapter
    except BaseException:
        detach(model, name)
        if (record := grafted(model)) is not None:
            record.names = before
        raise


def affordable(path: Path, model: nn.Module, method: Method, header: Mapping[str, Entry]) -> None:
    """Refuse a method that needs far more numbers than its file holds, before it allocates any of them.

    A file that lacks a few is told what it lacks, by name, once the adapter is there to compare it with.
    """
    held = sum(math.prod(entry.shape) for entry in header.values())
    needed = sum(_needed(model, method))
    if needed > 2 * held + SLACK:
        raise BadInput(
            f"{path} holds {held:,} numbers, the hyperparameters stated beside it need {needed:,}. Nothing was loaded."
        )


def _needed(model: nn.Module, method: Method) -> Iterator[int]:
    anatomy = anatomy_of(model)
    for term in method.methods():
        expression = term.expression()
        yield term.count([site.bind(model) for site in select(anatomy, expression)] if expression else [])
