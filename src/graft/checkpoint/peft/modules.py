"""What methods with tensors of their own for each linear module have in common: names, ranks by module, refusals."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graft.anatomy import Anatomy
from graft.attach import Adapter, Placed
from graft.checkpoint.peft.form import INSIDE
from graft.checkpoint.peft.paths import ends, targets
from graft.checkpoint.safe import Entry
from graft.errors import BadInput, Refused
from graft.method import Method, Sum

OWN = re.compile(
    r"base_model\.model\.(.+)\.(?:vera_lambda_[bd]|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|hra_u|oft_R\.weight"
    r"|fourierft_spectrum|lora_[ABE]|ln_tuning_layers\.(?:weight|bias))"
)


def whole(adapter: Adapter, anatomy: Anatomy, transposed: bool) -> dict[str, Any]:
    """The parts by the path of their module. Raises Refused for what is no whole linear module to PEFT.

    `transposed`: whether PEFT's method knows modules that store their weight (in, out), as GPT-2's do.
    """
    leaves, found = {leaf.path: leaf for leaf in anatomy.leaves}, {}
    name = type(adapter.method).__name__
    for site, part in _acting(adapter):
        leaf = leaves.get(site.path)
        if site.rows is not None:
            raise Refused(f"PEFT has one {name} for all of {site.path}, of which {site.name} is a share.")
        if site.batch or leaf is None or leaf.kind != "linear" or (leaf.transposed and not transposed):
            raise Refused(f"{site.path}: PEFT's {name} is for {'linear maps' if transposed else 'nn.Linear'} only.")
        found[site.path] = part
    return found


def _acting(adapter: Adapter) -> Iterator[tuple[Any, Any]]:
    yield from ((placed.site, placed.part) for placed in adapter.placed if placed.site is not None and not placed.head)


def named(anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry], kind: str = "linear") -> list[str]:
    """The modules that a checkpoint is for: those its configuration names, else those it has tensors of.

    Raises BadInput where this model has none of them, and Refused where one is not of the `kind`.
    """
    leaves = {leaf.path: leaf for leaf in anatomy.leaves}
    said = targets(anatomy, config, norms=kind == "norm")
    held = [match[1] for key in header if (match := OWN.fullmatch(key))]
    paths = list(dict.fromkeys(said if said is not None else [path for path in held if path in leaves]))
    if not paths:
        raise BadInput(
            f"none of the modules that PEFT's {config.get('target_modules')!r:.200} names are in this model."
        )
    if other := [path for path in paths if leaves[path].kind != kind]:
        raise Refused(f"PEFT's configuration names {', '.join(other[:4])}: graft reads this method at {kind}s only.")
    return paths


def setting(config: Mapping[str, Any], key: str, pattern: str, path: str, default: Any) -> Any:
    """A setting for one module: its own, where the pattern names the module, else everyone's."""
    for ending, value in (config.get(pattern) or {}).items():
        if not re.fullmatch(r"[\w.-]+", ending):
            raise Refused(
                f"PEFT's {pattern} has the pattern {ending!r:.80}: graft reads names of modules there, not patterns."
            )
        if ends(path, [ending]):
            return value
    return config.get(key, default)


def sizes(anatomy: Anatomy, path: str) -> tuple[int, int]:
    """Outputs and inputs of a module."""
    leaf = next(leaf for leaf in anatomy.leaves if leaf.path == path)
    return leaf.outputs, leaf.inputs


def together(terms: Sequence[Method]) -> Method:
    """One method, or a sum where modules have different settings."""
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def expected(shapes: Mapping[str, Sequence[int]]) -> dict[str, Entry]:
    """Entries of single precision by name, from shapes by module and tensor."""
    return {INSIDE + name: Entry(torch.float32, tuple(shape)) for name, shape in shapes.items()}


def filled(adapter: Adapter, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Graft's tensors from PEFT's, by how PEFT calls each tensor of a part; shared parts as they were drawn."""
    found = {}
    for placed in adapter.placed:
        if placed.head:
            continue
        for name, live in placed.part.state_dict().items():
            found[f"{placed.key}.{name}"] = live if placed.site is None else tensors[_key(placed, names[name])]
    return found


def _key(placed: Placed, name: str) -> str:
    assert placed.site is not None
    return f"{INSIDE}{placed.site.path}.{name}"
