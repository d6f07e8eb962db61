"""Tensors of the base that PEFT keeps beside an adapter: those of a token embedding or an LM head that it acts on."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from graft.checkpoint.safe import Entry, read_tensors
from graft.errors import Refused

COPY = re.compile(r"base_model\.model\.(.+)\.base_layer\.(weight|bias)")


def without(path: Path, model: nn.Module, header: Mapping[str, Entry]) -> dict[str, Entry]:
    """What a file holds beside such copies. Raises Refused where one is not what this base has there."""
    own, rest = dict(model.named_parameters(remove_duplicate=False)), dict(header)
    for key, entry in header.items():
        match = COPY.fullmatch(key)
        here = own.get(f"{match[1]}.{match[2]}") if match else None
        if match is None or here is None:
            continue
        if entry.shape != here.shape or not torch.equal(read_tensors(path, {key: entry})[key].to(here), here):
            raise Refused(f"the checkpoint holds another {match[1]} than this base. Load the base it is for.")
        del rest[key]
    return rest
