"""What a method costs on one model, from its configuration alone: no weights are read."""

from dataclasses import asdict, dataclass

from torch import nn

from graft.attach import attach, detach
from graft.errors import GraftError
from graft.method import Method


@dataclass(frozen=True)
class Costs:
    """The counts of `graft.attach.adapter.Counts`, or in `refused` why the method cannot be on the model.

    `sites` says where it acts, a line for each stack and role; `remarks` what there is to know about this model.
    """

    trainable: int = 0
    changed: int = 0
    rank: int = 0
    stored: int = 0
    head: int = 0
    total: int = 0
    sites: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    refused: str = ""


def costs(method: Method, model: nn.Module) -> Costs:
    """The costs of `method` on a model without weights, which is left as it was."""
    try:
        adapter = attach(model, method)
    except GraftError as error:
        return Costs(refused=str(error))
    try:
        return Costs(**asdict(adapter.counts), sites=tuple(adapter.reach()), remarks=adapter.remarks)
    finally:
        detach(model)
