"""AdaLoRA in PEFT's format.

PEFT leaves out triplets that were pruned and lists them in `rank_pattern`, with the scale of all of them. Read, they
are there again with λ = 0; graft writes all of them, which is the same function.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graft.anatomy import Anatomy
from graft.attach import Adapter
from graft.checkpoint.peft.form import INSIDE, Plan, Written
from graft.checkpoint.peft.modules import expected, named, sizes, whole
from graft.checkpoint.peft.paths import compact, expression
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.methods.adalora import AdaLoRA

# PEFT's name of each hyperparameter.
SETTINGS = {
    "init_rank": "init_r", "target_rank": "target_r", "alpha": "lora_alpha", "total_steps": "total_step",
    "warmup": "tinit", "final": "tfinal", "interval": "deltaT", "penalty": "orth_reg_weight", "beta1": "beta1",
    "beta2": "beta2", "dropout": "lora_dropout",
}  # fmt: skip


def written(adapter: Adapter, anatomy: Anatomy, method: AdaLoRA) -> Written:
    """Triplets as PEFT keeps them. Raises Refused for modules that PEFT's are not for."""
    if method.alpha < 0:
        raise Refused(f"PEFT takes the rank for an alpha that is not above 0, this is {method.alpha:g}.")
    parts = whole(adapter, anatomy, transposed=True)
    leaves = {leaf.path: leaf for leaf in anatomy.leaves}
    tensors: dict[str, Tensor] = {}
    for path, part in parts.items():
        named = {"lora_A": part.Q, "lora_B": part.P, "lora_E": part.lam[:, None]}
        tensors |= {f"{INSIDE}{path}.{name}": tensor.detach() for name, tensor in named.items()}
    settings = {theirs: value for ours, theirs in SETTINGS.items() if (value := getattr(method, ours)) is not None}
    settings.setdefault("total_step", 1)  # PEFT asks for one
    settings |= {"peft_type": "ADALORA", "target_modules": compact(anatomy, list(parts)), "bias": "none"}
    settings["fan_in_fan_out"] = all(leaves[path].transposed for path in parts)
    return Written(settings, tensors)


def planned(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read a checkpoint of triplets."""
    paths = named(anatomy, config, header)
    method = _method(config, expression(anatomy, paths))
    kept = {path: _kept(config, path, method.init_rank) for path in paths}
    shapes: dict[str, tuple[int, ...]] = {}
    for path, places in kept.items():
        outputs, inputs = sizes(anatomy, path)
        rank = sum(places)
        shapes |= {f"{path}.lora_A": (rank, inputs), f"{path}.lora_B": (outputs, rank), f"{path}.lora_E": (rank, 1)}

    def values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for placed in adapter.placed:
            if placed.site is None or placed.head:
                continue
            path, at = placed.site.path, torch.tensor(kept[placed.site.path])
            Q, P, lam = (tensors[f"{INSIDE}{path}.lora_{letter}"] for letter in "ABE")
            found |= placed.part.state_dict(prefix=f"{placed.key}.")
            found[f"{placed.key}.Q"] = Q.new_zeros(len(at), Q.shape[1]).index_put((at,), Q)
            found[f"{placed.key}.P"] = P.new_zeros(len(at), P.shape[0]).index_put((at,), P.T).T
            found[f"{placed.key}.lam"] = lam.new_zeros(len(at)).index_put((at,), lam[:, 0])
        return found

    return Plan(method, expected(shapes), values)


def _method(config: Mapping[str, Any], sites: str) -> AdaLoRA:
    given = {ours: config[theirs] for ours, theirs in SETTINGS.items() if config.get(theirs) is not None}
    if odd := [f"{k}={v!r:.40}" for k, v in given.items() if type(v) not in (int, float) or not math.isfinite(v)]:
        raise BadInput(f"PEFT's configuration has {', '.join(odd)}, which are no numbers.")
    rank = given.setdefault("init_rank", AdaLoRA.init_rank)
    given["target_rank"] = min(given.get("target_rank", rank), rank)
    if given.get("alpha", 0) <= 0:
        given["alpha"] = float(rank)  # so PEFT does
    given.setdefault("total_steps", given.get("warmup", 0) + given.get("final", 0) + 1)  # older versions need none
    return AdaLoRA(**given, sites=sites)


def _kept(config: Mapping[str, Any], path: str, rank: int) -> list[bool]:
    """Which triplets of a module the file has."""
    found = (config.get("rank_pattern") or {}).get(f"{path}.lora_E", [True] * rank)
    if not isinstance(found, list) or len(found) != rank or not all(type(each) is bool for each in found):
        raise BadInput(f"PEFT's rank_pattern says of {path} no {rank} times true or false.")
    return found
