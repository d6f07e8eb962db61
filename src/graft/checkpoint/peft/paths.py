"""Between PEFT's ways of naming modules and graft's site expressions. Names are compared as text, never as patterns."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graft.anatomy import Anatomy, select
from graft.anatomy.site import PAIR_ROLES, ROLES
from graft.anatomy.tree import ranges
from graft.errors import BadInput, Refused


def expression(anatomy: Anatomy, paths: Sequence[str]) -> str:
    """The shortest site expression found that means exactly the modules at `paths`."""
    wanted = set(paths)
    for candidate in _candidates(anatomy, sorted(wanted)):
        try:
            selection = select(anatomy, candidate)
        except (BadInput, Refused):
            continue
        reached = {site.path for site in selection if site.rows is None}
        if not selection.missing and reached == wanted and len(selection) == len(wanted):
            return candidate
    return " ".join(sorted(wanted))


def _candidates(anatomy: Anatomy, paths: Sequence[str]) -> Iterator[str]:
    plain = {s.path: s for s in anatomy.sites if s.rows is None and not s.batch and s.role not in PAIR_ROLES}
    sites = [plain[path] for path in paths if path in plain]
    if len(sites) == len(paths):
        found = {site.role for site in sites}
        roles = " ".join(role for role in ROLES if role in found)
        stacks = sorted({site.stack for site in sites})
        layers = {site.layer for site in sites if site.layer is not None}
        yield roles
        yield f"{' '.join(stacks)}: {roles}"
        yield from (f"{kind}: {roles}" for kind in ("self", "cross"))
        yield from (f"{stack} {kind}: {roles}" for stack in stacks for kind in ("self", "cross"))
        if layers:
            yield f"{roles} @ {ranges(layers)}"
    yield " ".join(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", path) for path in paths))


def compact(anatomy: Anatomy, paths: Sequence[str]) -> list[str]:
    """The shortest endings of `paths` that PEFT matches with these modules and no others."""
    others = [leaf.path for leaf in anatomy.leaves]
    for parts in (1, 2):
        endings = sorted({".".join(path.split(".")[-parts:]) for path in paths})
        if {path for path in others if ends(path, endings)} == set(paths):
            return endings
    return sorted(paths)


def ends(path: str, endings: Sequence[str]) -> bool:
    """Whether PEFT takes `path` for one of the modules called so."""
    return any(path == ending or path.endswith(f".{ending}") for ending in endings)


def targets(anatomy: Anatomy, config: Mapping[str, Any], norms: bool = False) -> list[str] | None:
    """The modules that a configuration names, in model order; None where it names them by a pattern, or all.

    `norms`: norms among them, too.
    """
    wanted, excluded = config.get("target_modules"), config.get("exclude_modules") or []
    if not isinstance(wanted, list) or not isinstance(excluded, list):
        return None
    kept = config.get("modules_to_save") or []
    indices = config.get("layers_to_transform")
    indices = [indices] if isinstance(indices, int) else indices or []
    patterns = config.get("layers_pattern") or []
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return [
        leaf.path
        for leaf in anatomy.leaves
        if (norms or leaf.kind != "norm")
        and ends(leaf.path, wanted)
        and not ends(leaf.path, excluded)
        and not any(f".{name}." in f".{leaf.path}." for name in kept)
        and (not indices or leaf.path in wanted or _layer(leaf.path, patterns) in indices)
    ]


def _layer(path: str, patterns: Sequence[str]) -> int | None:
    """The number of the layer a module is in: the first number after a name, or after one of `patterns`."""
    for before, number in re.findall(r"([^.]+)\.(\d+)(?=\.)", path):
        if not patterns or before in patterns:
            return int(number)
    return None
