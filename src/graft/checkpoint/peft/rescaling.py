"""IA3 in PEFT's format: a row vector scales what enters a module ("feedforward"), a column vector what leaves it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graft.anatomy import Anatomy
from graft.attach import Adapter
from graft.checkpoint.peft.form import INSIDE, Plan, Written
from graft.checkpoint.peft.paths import compact, expression, targets
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.methods.ia3 import ENTERING, IA3, ScaleInput

VECTOR = re.compile(r"base_model\.model\.(.+)\.ia3_l")


def written(adapter: Adapter, anatomy: Anatomy) -> Written:
    """Vectors by module; a share of a fused projection as a vector of ones outside the share."""
    vectors: dict[str, Tensor] = {}
    entering: list[str] = []
    leaves = {leaf.path: leaf for leaf in anatomy.leaves}
    for placed in adapter.placed:
        if placed.head or placed.site is None:
            continue
        site, path = placed.site, placed.site.path
        part: Any = placed.part
        vector = part.l.detach()
        if site.batch or leaves[path].kind != "linear":
            raise Refused(f"{path}: PEFT's IA3 scales linear modules only. Serve it with graft.")
        if isinstance(part, ScaleInput):
            entering.append(path)
            vectors[path] = vector[None, :]
            continue
        if site.rows is not None:
            ones = vector.new_ones(replace(site, rows=None).weight.shape[0])
            vector = site.rows.put(vectors[path][:, 0] if path in vectors else ones, vector, 0)
        vectors[path] = vector[:, None]
    scaled, inner = compact(anatomy, list(vectors)), compact(anatomy, entering) if entering else []
    if not set(inner) <= set(scaled):
        # PEFT wants the feedforward modules among the targets by the same names.
        scaled, inner = sorted(vectors), sorted(entering)
    settings = {
        "peft_type": "IA3",
        "target_modules": scaled,
        "feedforward_modules": inner,
        "fan_in_fan_out": all(leaves[path].transposed for path in vectors),
    }
    return Written(settings, {f"{INSIDE}{path}.ia3_l": vector for path, vector in vectors.items()})


def planned(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read a checkpoint of vectors. Raises Refused where one scales the side that graft does not scale there."""
    leaves = {leaf.path: leaf for leaf in anatomy.leaves if leaf.kind == "linear"}
    plain = {site.path: site.role for site in anatomy.sites if site.rows is None and site.role in ENTERING}
    said = targets(anatomy, config)
    held = [match[1] for key in header if (match := VECTOR.fullmatch(key)) and match[1] in leaves]
    paths = [path for path in (said if said is not None else held) if path in leaves]
    if not paths:
        raise BadInput(
            f"none of the modules that PEFT's {config.get('target_modules')!r:.200} names are in this model."
        )
    expected, other = {}, []
    for path in paths:
        key, (inputs, outputs) = f"{INSIDE}{path}.ia3_l", (leaves[path].inputs, leaves[path].outputs)
        shape = (1, inputs) if path in plain else (outputs, 1)
        expected[key] = Entry(torch.float32, shape)
        if key in header and header[key].shape != shape and header[key].shape in ((1, inputs), (outputs, 1)):
            other.append(path)
    if other:
        raise Refused(
            f"PEFT's configuration scales the other side of {', '.join(other[:4])}: graft's IA3 scales what enters "
            "`down` and `o`, and what leaves every other module."
        )
    return Plan(IA3(sites=expression(anatomy, paths)), expected, _values)


def _values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{placed.key}.l": tensors[f"{INSIDE}{placed.site.path}.ia3_l"].flatten()
        for placed in adapter.placed
        if placed.site is not None and not placed.head
    }
