"""The rare method that trains the base's own tensors: one at a time, with the originals kept to put back."""

from torch import nn

from graft.attach.adapter import Adapter
from graft.attach.spot import Grafted


def begin(record: Grafted, adapter: Adapter) -> None:
    """Let the chosen tensors train; remember what they were."""
    paths = {path for term in adapter.method.methods() for path in term.choose(record.anatomy, record.model)}
    # A head that trains through copies does not train in place too: it would be counted twice and never move.
    copied = tuple(f"{item.site.path}." for item in adapter.placed if item.head and item.site is not None)
    for path in record.trainable:
        if path in paths and not path.startswith(copied):
            parameter = record.model.get_parameter(path)
            adapter.originals[path] = parameter.detach().clone()
            parameter.requires_grad_(True)
    adapter.trained = tuple(adapter.originals)


def end(record: Grafted, adapter: Adapter) -> None:
    """Put the originals back."""
    show(record, adapter, tuned=True)
    for path in adapter.trained:
        parameter = record.model.get_parameter(path)
        parameter.data.copy_(adapter.originals[path])
        parameter.requires_grad_(False)


def show(record: Grafted, adapter: Adapter, tuned: bool) -> None:
    """Have the model run on the tuned tensors, or on the originals. They change places, without a copy where they can:
    only the ones in the model move with it."""
    if not adapter.trained or adapter.tuned_in_place == tuned:
        return
    for path in adapter.trained:
        parameter: nn.Parameter = record.model.get_parameter(path)
        parameter.data, adapter.originals[path] = adapter.originals[path].to(parameter), parameter.data
    adapter.tuned_in_place = tuned
