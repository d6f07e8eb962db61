"""LoHa and LoKr in PEFT's format.

Ranks and alphas may differ by module. PEFT lowers a Kronecker factor that does not divide a side, which is graft's
`LoKr(variant="hf")`. PEFT begins with another zero tensor than graft, which is of no consequence once it is trained.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from graft.anatomy import Anatomy
from graft.attach import Adapter
from graft.checkpoint.peft.form import INSIDE, Plan, Written
from graft.checkpoint.peft.modules import expected, filled, named, setting, sizes, together, whole
from graft.checkpoint.peft.paths import compact, expression
from graft.checkpoint.safe import Entry
from graft.errors import BadInput
from graft.methods.loha import LoHa
from graft.methods.lokr import LoKr

HADAMARD = {"B1": "hada_w1_a", "A1": "hada_w1_b", "B2": "hada_w2_a", "A2": "hada_w2_b"}
KRONECKER = {
    "C": "lokr_w1", "C1": "lokr_w1_a", "C2": "lokr_w1_b", "D": "lokr_w2", "B": "lokr_w2_a", "A": "lokr_w2_b",
}  # fmt: skip


def written(adapter: Adapter, anatomy: Anatomy, method: LoHa | LoKr) -> Written:
    """Products as PEFT keeps them. Raises Refused for modules that PEFT's are not for."""
    parts = whole(adapter, anatomy, transposed=False)
    names = HADAMARD if isinstance(method, LoHa) else KRONECKER
    tensors = {
        f"{INSIDE}{path}.{names[name]}": tensor.detach()
        for path, part in parts.items()
        for name, tensor in part.named_parameters()
    }
    settings: dict[str, Any] = {
        "peft_type": "LOHA" if isinstance(method, LoHa) else "LOKR",
        "r": method.rank,
        "alpha": method.alpha,
        "target_modules": compact(anatomy, list(parts)),
        "init_weights": True,
    }
    if isinstance(method, LoKr):
        if method.rslora:
            settings["alpha"] *= method.rank**0.5
        settings |= {"decompose_both": method.decompose_both, "decompose_factor": method.factor or -1}
    return Written(settings, tensors)


def planned(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read a checkpoint of products. Modules with another rank or alpha become another term of a sum."""
    hadamard = config["peft_type"] == "LOHA"
    groups: dict[tuple[Any, Any], list[str]] = {}
    for path in named(anatomy, config, header):
        rank, alpha = (setting(config, *keys, path, 8) for keys in (("r", "rank_pattern"), ("alpha", "alpha_pattern")))
        if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise BadInput(f"PEFT's configuration gives {path} the rank {rank!r:.40} and the alpha {alpha!r:.40}.")
        groups.setdefault((rank, float(alpha)), []).append(path)
    terms: list[LoHa | LoKr] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for (rank, alpha), paths in groups.items():
        sites = expression(anatomy, paths)
        made = partial(LoHa, sites=sites) if hadamard else partial(_kronecker, anatomy, config, paths, sites)
        terms.append(made(rank, alpha))
        for path in paths:
            shapes |= {f"{path}.{name}": shape for name, shape in _shapes(anatomy, path, terms[-1]).items()}

    def values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return filled(adapter, tensors, HADAMARD if hadamard else KRONECKER)

    return Plan(together(terms), expected(shapes), values)


def _kronecker(
    anatomy: Anatomy, config: Mapping[str, Any], paths: list[str], sites: str, rank: int, alpha: float
) -> LoKr:
    said, both = config.get("decompose_factor", -1), bool(config.get("decompose_both"))
    if type(said) is not int:
        raise BadInput(f"PEFT's configuration has the decompose_factor {said!r:.40}, which is no whole number.")
    factor = 0 if said == -1 else max(said, 1)  # PEFT finds no divisor but 1 for what is below 1, -1 apart
    divides = not factor or not any(size % factor for path in paths for size in sizes(anatomy, path))
    return LoKr(rank, alpha, factor, both, "paper" if divides else "hf", sites=sites)


def _shapes(anatomy: Anatomy, path: str, method: LoHa | LoKr) -> dict[str, tuple[int, ...]]:
    """PEFT's tensors at one module."""
    outputs, inputs = sizes(anatomy, path)
    if isinstance(method, LoHa):
        up, down = (outputs, method.rank), (method.rank, inputs)
        return {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": up, "hada_w2_b": down}
    found: dict[str, tuple[int, ...]] = {}
    left, right, *ranks = method.shapes(outputs, inputs, path)
    for name, shape, rank in (("lokr_w1", left, ranks[0]), ("lokr_w2", right, ranks[1])):
        thin = {f"{name}_a": (shape[0], rank or 0), f"{name}_b": (rank or 0, shape[1])}
        found |= {name: shape} if rank is None else thin
    return found
