"""VeRA and FourierFT in PEFT's format: trained vectors around something frozen that is drawn from a seed.

PEFT keeps VeRA's pair in the file unless it is told not to, and never keeps the places of FourierFT's entries: both are
then drawn again, as graft draws them too. Places that a seed does not give any more cannot be told to PEFT.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graft.anatomy import Anatomy
from graft.attach import Adapter
from graft.checkpoint.peft.form import BEFORE, INSIDE, Plan, Written
from graft.checkpoint.peft.modules import expected, filled, named, setting, sizes, together, whole
from graft.checkpoint.peft.paths import compact, expression
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.methods.fourier_ft import FourierFT, Places
from graft.methods.vera import VeRA

VECTORS = {"d": "vera_lambda_d", "b": "vera_lambda_b"}
PAIR = {"A": f"{BEFORE}vera_A", "B": f"{BEFORE}vera_B"}


def written_vectors(adapter: Adapter, anatomy: Anatomy, method: VeRA) -> Written:
    """VeRA as PEFT keeps it, with its pair. Raises Refused for modules that PEFT's is not for."""
    parts = whole(adapter, anatomy, transposed=True)
    tensors = {
        f"{INSIDE}{path}.{theirs}": getattr(part, ours).detach()
        for path, part in parts.items()
        for ours, theirs in VECTORS.items()
    }
    pair: Any = next(placed.part for placed in adapter.placed if placed.site is None)
    settings = {
        "peft_type": "VERA",
        "r": method.rank,
        "d_initial": method.d_initial,
        "vera_dropout": method.dropout,
        "projection_prng_key": method.seed,
        "save_projection": True,
        "init_weights": True,
        **_common(anatomy, parts),
    }
    return Written(settings, tensors | {theirs: getattr(pair, ours) for ours, theirs in PAIR.items()})


def written_spectra(adapter: Adapter, anatomy: Anatomy, method: FourierFT) -> Written:
    """FourierFT as PEFT keeps it. Raises Refused for modules PEFT has it not for, and for places it would not draw."""
    parts = whole(adapter, anatomy, transposed=True)
    for path, part in parts.items():
        outputs, inputs = sizes(anatomy, path)
        if not torch.equal(Places(outputs * inputs, method.frequencies, method.seed).at, part.lent[0].at.cpu()):
            raise Refused(
                f"{path}: seed {method.seed} gives other places than this adapter has, and PEFT keeps a seed only."
            )
    settings = {
        "peft_type": "FOURIERFT",
        "n_frequency": method.frequencies,
        "scaling": method.scale,
        "random_loc_seed": method.seed,
        "init_weights": method.init == "zeros",
        **_common(anatomy, parts),
    }
    return Written(settings, {f"{INSIDE}{path}.fourierft_spectrum": part.c.detach() for path, part in parts.items()})


def _common(anatomy: Anatomy, parts: Mapping[str, Any]) -> dict[str, Any]:
    leaves = {leaf.path: leaf for leaf in anatomy.leaves}
    return {
        "target_modules": compact(anatomy, list(parts)),
        "fan_in_fan_out": all(leaves[path].transposed for path in parts),
        "bias": "none",
    }


def planned_vectors(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read VeRA; its pair is read where it was kept, and drawn as PEFT draws it where it was not."""
    paths, kept = named(anatomy, config, header), bool(config.get("save_projection", True))
    method = VeRA(
        rank=config.get("r", 256),
        d_initial=config.get("d_initial") or 0.1,
        dropout=config.get("vera_dropout", 0.0),
        seed=config.get("projection_prng_key", 0),
        sites=expression(anatomy, paths),
    )
    shapes = {f"{path}.vera_lambda_d": (method.rank,) for path in paths}
    shapes |= {f"{path}.vera_lambda_b": (sizes(anatomy, path)[0],) for path in paths}
    outputs, inputs = (max(sizes(anatomy, path)[side] for path in paths) for side in (0, 1))
    pair = {PAIR["A"]: (method.rank, inputs), PAIR["B"]: (outputs, method.rank)}
    found = {key: Entry(torch.float32, shape) for key, shape in pair.items() if kept or key in header}
    if wrong := [key for key in found if key in header and header[key].shape != found[key].shape]:
        raise BadInput(f"PEFT's configuration asks for {', '.join(wrong)} of another shape than the file has.")

    def values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        made = filled(adapter, tensors, VECTORS)
        return made | ({f"shared.0.{ours}": tensors[theirs] for ours, theirs in PAIR.items()} if kept else {})

    return Plan(method, expected(shapes) | found, values)


def planned_spectra(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read FourierFT. Modules with another number of frequencies become another term of a sum."""
    groups: dict[Any, list[str]] = {}
    for path in named(anatomy, config, header):
        frequencies = setting(config, "n_frequency", "n_frequency_pattern", path, 1000)
        if type(frequencies) is not int or frequencies < 1:
            raise BadInput(f"PEFT's configuration gives {path} {frequencies!r:.40} frequencies.")
        groups.setdefault(frequencies, []).append(path)
    methods = [
        FourierFT(
            frequencies=frequencies,
            scale=config.get("scaling", 150.0),
            init="zeros" if config.get("init_weights") else "normal",
            seed=config.get("random_loc_seed", 777),
            sites=expression(anatomy, paths),
        )
        for frequencies, paths in groups.items()
    ]
    shapes = {f"{path}.fourierft_spectrum": (n,) for n, paths in groups.items() for path in paths}
    names = {"c": "fourierft_spectrum"}
    return Plan(together(methods), expected(shapes), lambda adapter, tensors: filled(adapter, tensors, names))
