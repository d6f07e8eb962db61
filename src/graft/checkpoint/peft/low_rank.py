"""LoRA, rank-stabilized LoRA and DoRA in PEFT's format.

A linear has one pair in PEFT, where graft can have one for each role of a fused projection: those become one pair of
k times the rank whose B is zero outside each role's block, with a scale that stays what it was. DoRA's magnitudes of
rows without a pair are the norms of these rows, which leaves them as they are.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graft.anatomy import Anatomy
from graft.attach import Adapter, Placed
from graft.checkpoint.peft.form import INSIDE, Plan, Written
from graft.checkpoint.peft.modules import setting, together
from graft.checkpoint.peft.paths import compact, expression, targets
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.method import Method
from graft.methods.dora import DoRA
from graft.methods.lora import LoRA

PAIR = re.compile(r"base_model\.model\.(.+)\.(lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B)")


def written(adapter: Adapter, anatomy: Anatomy, method: LoRA | DoRA) -> Written:
    """An adapter of low-rank pairs as PEFT keeps it. Raises Refused inside fused experts."""
    groups: dict[str, list[Placed]] = {}
    for placed in adapter.placed:
        if not placed.head and placed.site is not None:
            groups.setdefault(placed.site.path, []).append(placed)
    tensors: dict[str, Tensor] = {}
    for path, items in groups.items():
        tensors |= {f"{INSIDE}{path}.{name}": tensor for name, tensor in _pair(path, items, method).items()}
    times = {path: len(items) for path, items in groups.items()}
    usual = Counter(times.values()).most_common(1)[0][0]
    alpha = {k: _whole(method.alpha * (math.sqrt(k) if method.rslora else k)) for k in set(times.values())}
    leaves = {leaf.path: leaf for leaf in anatomy.leaves}
    settings = {
        "peft_type": "LORA",
        "r": method.rank * usual,
        "lora_alpha": alpha[usual],
        "lora_dropout": method.dropout,
        "use_rslora": method.rslora,
        "use_dora": isinstance(method, DoRA),
        "target_modules": compact(anatomy, list(groups)),
        "fan_in_fan_out": all(leaves[path].transposed and leaves[path].kind == "linear" for path in groups),
        "rank_pattern": {path: method.rank * k for path, k in times.items() if k != usual},
        "alpha_pattern": {path: alpha[k] for path, k in times.items() if k != usual},
        "bias": "none",
        "init_lora_weights": True,
    }
    return Written(settings, tensors)


def _pair(path: str, items: Sequence[Placed], method: LoRA | DoRA) -> dict[str, Tensor]:
    """The tensors of one module."""
    site = items[0].site
    assert site is not None
    if site.batch:
        raise Refused(f"{path}: PEFT's format for pairs inside fused experts is another one. Serve it with graft.")
    parts: list[Any] = [placed.part for placed in items]
    A, B = torch.cat([part.A.detach() for part in parts]), parts[0].B.detach()
    whole = replace(site, rows=None)
    if site.rows is not None:
        height, blocks = whole.weight.shape[0], []
        for placed, part in zip(items, parts, strict=True):
            assert placed.site is not None and placed.site.rows is not None
            blocks.append(placed.site.rows.put(part.B.new_zeros(height, method.rank), part.B.detach(), 0))
        B = torch.cat(blocks, 1)
    if site.looked_up:
        if isinstance(method, DoRA):
            raise Refused(f"{path}: DoRA on an embedding is not the same function in PEFT. Serve it with graft.")
        return {"lora_embedding_A": A, "lora_embedding_B": B}
    found = {"lora_A.weight": A, "lora_B.weight": B}
    if isinstance(method, DoRA):
        m = parts[0].m.detach() if site.rows is None else whole.weight.detach().float().norm(dim=-1)
        for placed, part in zip(items, parts, strict=True):
            if placed.site is not None and placed.site.rows is not None:
                m = placed.site.rows.put(m, part.m.detach(), 0)
        found["lora_magnitude_vector"] = m
    return found


def planned(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    """How to read a checkpoint of low-rank pairs. Modules with another rank or alpha become another term of a sum."""
    leaves = {leaf.path: leaf for leaf in anatomy.leaves if leaf.kind != "norm"}
    said = targets(anatomy, config)
    held = [match[1] for key in header if (match := PAIR.fullmatch(key))]
    paths = list(dict.fromkeys(said if said is not None else [path for path in held if path in leaves]))
    if not paths:
        raise BadInput(
            f"none of the modules that PEFT's {config.get('target_modules')!r:.200} names are in this model."
        )
    groups: dict[tuple[int, float], list[str]] = {}
    expected: dict[str, Entry] = {}
    for path in paths:
        rank, alpha = (
            setting(config, *keys, path, 8) for keys in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern"))
        )
        if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise BadInput(f"PEFT's configuration gives {path} the rank {rank!r:.40} and the alpha {alpha!r:.40}.")
        groups.setdefault((rank, float(alpha)), []).append(path)
        a, b = ("lora_A.weight", "lora_B.weight")
        if leaves[path].kind == "embedding":
            a, b = ("lora_embedding_A", "lora_embedding_B")
        expected[f"{INSIDE}{path}.{a}"] = Entry(torch.float32, (rank, leaves[path].inputs))
        expected[f"{INSIDE}{path}.{b}"] = Entry(torch.float32, (leaves[path].outputs, rank))
        if config.get("use_dora"):
            expected[_magnitude(path, header)] = Entry(torch.float32, (leaves[path].outputs,))
    terms = [_term(anatomy, config, *key, group) for key, group in groups.items()]
    return Plan(together(terms), expected, _values)


def _term(anatomy: Anatomy, config: Mapping[str, Any], rank: int, alpha: float, paths: Sequence[str]) -> Method:
    kind = DoRA if config.get("use_dora") else LoRA
    dropout, stable = float(config.get("lora_dropout") or 0.0), bool(config.get("use_rslora"))
    return kind(rank=rank, alpha=alpha, dropout=dropout, rslora=stable, sites=expression(anatomy, paths))


def _values(adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for placed in adapter.placed:
        if placed.head or placed.site is None:
            continue
        start = f"{INSIDE}{placed.site.path}."
        for name, theirs in (
            ("A", ("lora_A.weight", "lora_embedding_A")),
            ("B", ("lora_B.weight", "lora_embedding_B")),
        ):
            found[f"{placed.key}.{name}"] = next(tensors[start + key] for key in theirs if start + key in tensors)
        key = _magnitude(placed.site.path, tensors)
        if key in tensors:
            found[f"{placed.key}.m"] = tensors[key]
    return found


def _magnitude(path: str, names: Mapping[str, Any]) -> str:
    """The name of DoRA's magnitudes; some versions of PEFT added `.weight` to it."""
    name = f"{INSIDE}{path}.lora_magnitude_vector"
    return f"{name}.weight" if f"{name}.weight" in names else name


def _whole(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number
