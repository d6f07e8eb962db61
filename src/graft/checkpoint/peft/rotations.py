"""HRA and OFT in PEFT's format.

PEFT's OFT takes a series for the rotation by default, graft's `OFT(variant="neumann")`; its exact rotation has the
opposite sign of Q. A block size that does not divide an input is moved to one that does.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from graft.anatomy import Anatomy
from graft.attach import Adapter
from graft.checkpoint.peft.form import INSIDE, Plan, Written
from graft.checkpoint.peft.modules import expected, filled, named, sizes, together, whole
from graft.checkpoint.peft.paths import compact, expression
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.methods.hra import HRA
from graft.methods.oft import OFT

SINCE = (0, 18)  # the version of PEFT in which the series of OFT became what it is
FEWEST = 4  # with fewer terms PEFT's series has other coefficients


def written_reflections(adapter: Adapter, anatomy: Anatomy, method: HRA) -> Written:
    """Reflections as PEFT keeps them. Raises Refused for modules that PEFT's are not for."""
    parts = whole(adapter, anatomy, transposed=False)
    settings = {"peft_type": "HRA", "r": method.rank, "apply_GS": method.gram_schmidt, **_common(anatomy, parts)}
    return Written(settings, {f"{INSIDE}{path}.hra_u": part.U.detach() for path, part in parts.items()})


def written_rotations(adapter: Adapter, anatomy: Anatomy, method: OFT) -> Written:
    """Rotations as PEFT keeps them. Raises Refused for modules that PEFT's are not for, and for too short a series."""
    parts = whole(adapter, anatomy, transposed=False)
    series = method.variant == "neumann"
    if series and method.terms < FEWEST:
        raise Refused(f"PEFT's series has other coefficients below {FEWEST} terms, this has {method.terms}.")
    settings = {
        "peft_type": "OFT",
        "peft_version": ".".join(map(str, (*SINCE, 0))),
        "r": 0,
        "oft_block_size": method.block,
        "block_share": method.share,
        "use_cayley_neumann": series,
        "num_cayley_neumann_terms": method.terms if series else 5,
        **_common(anatomy, parts),
    }
    sign = 1 if series else -1
    return Written(settings, {f"{INSIDE}{path}.oft_R.weight": sign * part.Q.detach() for path, part in parts.items()})


def _common(anatomy: Anatomy, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"target_modules": compact(anatomy, list(parts)), "bias": "none", "init_weights": True}


def planned_reflections(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read a checkpoint of reflections."""
    paths = named(anatomy, config, header)
    rank, orthogonal = config.get("r", 8), config.get("apply_GS", False)
    odd = type(rank) is int and rank % 2 == 1 and not orthogonal
    method = HRA(rank, orthogonal, init="random" if odd else "pairs", sites=expression(anatomy, paths))
    shapes = {f"{path}.hra_u": (sizes(anatomy, path)[1], method.rank) for path in paths}
    return Plan(method, expected(shapes), lambda adapter, tensors: filled(adapter, tensors, {"U": "hra_u"}))


def planned_rotations(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read a checkpoint of rotations. Modules with another block size become another term of a sum."""
    series, terms = config.get("use_cayley_neumann", True), config.get("num_cayley_neumann_terms", 5)
    if series:
        _refuse_series(config.get("peft_version"), terms)
    groups: dict[int, list[str]] = {}
    for path in named(anatomy, config, header):
        groups.setdefault(_block(config, sizes(anatomy, path)[1]), []).append(path)
    share = config.get("block_share", False)
    methods, shapes = [], {}
    for block, paths in groups.items():
        sites = expression(anatomy, paths)
        methods.append(
            OFT(block, share, "neumann", max(terms, FEWEST), sites) if series else OFT(block, share, sites=sites)
        )
        for path in paths:
            blocks = 1 if share else sizes(anatomy, path)[1] // block
            shapes[f"{path}.oft_R.weight"] = (blocks, block * (block - 1) // 2)

    def values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = filled(adapter, tensors, {"Q": "oft_R.weight"})
        return found if series else {name: -tensor for name, tensor in found.items()}

    return Plan(together(methods), expected(shapes), values)


def _refuse_series(version: Any, terms: Any) -> None:
    said = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if said is None or (int(said[1]), int(said[2])) < SINCE:
        raise Refused(
            f"this OFT was trained with PEFT {version or 'of an unknown version'!s:.40}: its series changed in "
            f"{'.'.join(map(str, SINCE))}, and what it was cannot be told from the file. Use that PEFT for it."
        )
    if type(terms) is not int or terms < FEWEST - 1:  # with 3 terms PEFT computes what it does with 4
        raise Refused(f"num_cayley_neumann_terms={terms!r:.40}: graft does not do what PEFT does with fewer than 3.")


def _block(config: Mapping[str, Any], inputs: int) -> int:
    """The block size PEFT comes to at a module, from the one its configuration has, or from a number of blocks."""
    block, blocks = config.get("oft_block_size", 32), config.get("r", 0)
    if any(type(number) is not int or number < 0 for number in (block, blocks)) or (block > 0) == (blocks > 0):
        raise BadInput(f"PEFT's configuration has oft_block_size={block!r:.40} and r={blocks!r:.40}: one must be 0.")
    return _divisor(inputs, block) if block else inputs // _divisor(inputs, blocks)


def _divisor(size: int, near: int) -> int:
    """The divisor of `size` nearest to `near`, of two the smaller; never above `size`."""
    if near >= size:
        return size
    return min((n for n in range(1, size + 1) if size % n == 0), key=lambda n: (abs(n - near), n))
