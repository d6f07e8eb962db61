"""LN-tuning in PEFT's format: a copy of each norm's own tensors."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from graft.anatomy import Anatomy
from graft.attach import Adapter
from graft.checkpoint.peft.form import INSIDE, Plan, Written
from graft.checkpoint.peft.modules import expected, filled, named
from graft.checkpoint.peft.paths import compact, expression
from graft.checkpoint.safe import Entry
from graft.methods.ln_tuning import LNTuning

NAMES = {name: f"ln_tuning_layers.{name}" for name in ("weight", "bias")}


def written(adapter: Adapter, anatomy: Anatomy) -> Written:
    """Norms as PEFT keeps them."""
    acting = [(p.site.path, p.part) for p in adapter.placed if p.site is not None and not p.head]
    tensors = {
        f"{INSIDE}{path}.{NAMES[name]}": tensor.detach()
        for path, part in acting
        for name, tensor in part.named_parameters()
    }
    settings = {"peft_type": "LN_TUNING", "target_modules": compact(anatomy, [path for path, _ in acting])}
    return Written(settings, tensors)


def planned(model: nn.Module, anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read a checkpoint of norms. Raises Refused where it is of other modules."""
    paths = named(anatomy, config, header, "norm")
    shapes = {
        f"{path}.{NAMES[name]}": tuple(tensor.shape)
        for path in paths
        for name, tensor in model.get_submodule(path).named_parameters(recurse=False)
        if name in NAMES
    }
    method = LNTuning(sites=expression(anatomy, paths))
    return Plan(method, expected(shapes), lambda adapter, tensors: filled(adapter, tensors, NAMES))
