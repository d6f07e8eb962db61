"""Adapters in folders for a method that is made of others: they are on the model until it is attached."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from graft import checkpoint
from graft.attach import detach
from graft.checkpoint.source import names
from graft.errors import BadInput
from graft.method import Method


def located(folders: Sequence[str], method: Method) -> list[Path]:
    """Where the adapters are. Raises BadInput for one that is not there, and for a method that is made of none."""
    if folders and not any(term.needs_adapters for term in method.methods()):
        said = "+".join(term.slug() for term in method.methods())
        raise BadInput(
            f"--upon gives adapters to a method that is made of others, and {said} is not: leave it out, or choose "
            "--method adapter_fusion or parallel."
        )
    return [checkpoint.locate(folder) for folder in folders]


@contextmanager
def lent(model: nn.Module, places: Sequence[Path], method: Method, taken: str) -> Iterator[Method]:
    """The method, made of the adapters in `places`, which are on the model meanwhile, without their task heads.

    They are named after their folders, and none is called `taken`. Raises what `graft.load` raises.
    """
    called: list[str] = []
    try:
        for place, name in zip(places, names(places, taken), strict=True):
            called.append(checkpoint.load(model, place, name, head=False).name)
        yield method.made_of(tuple(called))
    finally:
        for name in called:
            detach(model, name)
