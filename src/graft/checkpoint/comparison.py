"""The tensors a file declares beside those an adapter expects."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from graft.checkpoint.safe import Entry, listed
from graft.errors import BadInput


def compare(path: Path, header: Mapping[str, Entry], expected: Mapping[str, Tensor | Entry]) -> None:
    """Refuse a file that is not exactly what is expected: everything missing, extra or misshapen in one error."""
    missing = sorted(expected.keys() - header.keys())
    extra = sorted(header.keys() - expected.keys())
    wrong = [
        f"{name} is {list(header[name].shape)} {header[name].dtype}, expected {list(want.shape)} {want.dtype}"
        for name, want in expected.items()
        if name in header and (tuple(want.shape) != header[name].shape or not _alike(want.dtype, header[name].dtype))
    ]
    said = [
        f"{len(names)} {kind}: {listed(names)}"
        for kind, names in (("missing", missing), ("not expected", extra))
        if names
    ]
    said += [f"{len(wrong)} of another shape or type: {listed(wrong)}"] if wrong else []
    if said:
        raise BadInput(
            f"{path} does not hold this adapter's tensors:\n  " + "\n  ".join(said) + "\n"
            "It belongs to another model, or to other hyperparameters than those stated beside it. Nothing was loaded."
        )


def _alike(want: torch.dtype, seen: torch.dtype) -> bool:
    return want == seen or (want.is_floating_point and seen.is_floating_point)
