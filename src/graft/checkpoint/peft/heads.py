"""Task heads: what graft keeps as parts that replace a head's parameters, and PEFT as modules_to_save."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graft.anatomy import Anatomy
from graft.anatomy.survey import inside
from graft.attach import Adapter
from graft.checkpoint.peft.form import task
from graft.checkpoint.peft.modules import OWN
from graft.checkpoint.safe import Entry, listed
from graft.errors import BadInput

# PEFT adds the head to modules_to_save for these tasks by itself, and then must find it in the file.
ALWAYS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


def written(adapter: Adapter, anatomy: Anatomy, prefix: str) -> tuple[list[str], dict[str, Tensor]]:
    """The head modules that PEFT must keep, and all their tensors, the adapter's in place of the base's."""
    placed = [p for p in adapter.placed if p.head and p.site is not None]
    if not placed and task(adapter.model, anatomy) not in ALWAYS:
        return [], {}
    modules, tensors = [], {}
    for path in anatomy.head_paths:
        if task(adapter.model, anatomy) in ALWAYS or any(inside(p.site.path, path) for p in placed if p.site):
            modules.append(path)
            for name, tensor in adapter.model.get_submodule(path).named_parameters():
                if ".graft." not in f".{name}":
                    tensors[f"{prefix}{path}.{name}"] = tensor.detach()
    for item in placed:
        assert item.site is not None
        for name, tensor in item.part.named_parameters():
            tensors[f"{prefix}{item.site.path}.{name}"] = tensor.detach()
    return modules, tensors


def check_named(
    path: Path, model: nn.Module, config: Mapping[str, Any], header: Mapping[str, Entry], prefix: str
) -> None:
    """Refuse a file without the tensors of a module that `modules_to_save` names and this model has."""
    said = config.get("modules_to_save") or []
    names = [said] if isinstance(said, str) else said
    wanted = {
        f"{prefix}{path}"
        for path, _ in model.named_parameters(remove_duplicate=False)
        if ".graft." not in f".{path}" and any(f".{name}." in f".{path}" for name in names)
    }
    if missing := sorted(wanted - header.keys()):
        raise BadInput(
            f"{path} lacks {listed(missing)}; adapter_config.json has {', '.join(names)} in modules_to_save. "
            "Nothing was loaded. Get the file again, or remove from modules_to_save what was not trained."
        )


def held(anatomy: Anatomy, header: Mapping[str, Entry], prefix: str) -> bool:
    """Whether a checkpoint holds a head's own tensors."""
    return len(outside(anatomy, header, prefix)) < len(header)


def outside(anatomy: Anatomy, header: Mapping[str, Entry], prefix: str) -> dict[str, Entry]:
    """What a checkpoint holds beside a head's own tensors; what an adapter has at a head is the adapter's."""
    starts = tuple(f"{prefix}{path}." for path in anatomy.head_paths)
    return {
        key: entry
        for key, entry in header.items()
        if not key.startswith(starts) or "lora_" in key or "ia3_l" in key or OWN.fullmatch(key)
    }


def expected(adapter: Adapter, header: Mapping[str, Entry], prefix: str) -> dict[str, Entry]:
    """The head tensors a checkpoint must hold: all of each module of which it holds any."""
    return {
        key: Entry(torch.float32, tuple(tensor.shape))
        for placed in _heads(adapter)
        if (own := _names(placed, prefix)).keys() & header.keys()
        for key, (_, tensor) in own.items()
    }


def values(adapter: Adapter, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Graft's head tensors by stored name; those that the file has none of are the base's."""
    return {
        name: tensors.get(key, own.detach())
        for placed in _heads(adapter)
        for key, (name, own) in _names(placed, prefix).items()
    }


def remark(adapter: Adapter, header: Mapping[str, Entry], prefix: str) -> tuple[str, ...]:
    """What to know of modules of a head that PEFT did not keep: it keeps the last, the others stay the base's."""
    left = [str(each.site.path) for each in _heads(adapter) if not _names(each, prefix).keys() & header.keys()]
    return (f"of the head, {listed(left)} is the base's: PEFT's file has none of it",) if left else ()


def _heads(adapter: Adapter) -> list[Any]:
    return [placed for placed in adapter.placed if placed.head and placed.site is not None]


def _names(placed: Any, prefix: str) -> dict[str, tuple[str, Tensor]]:
    return {
        f"{prefix}{placed.site.path}.{name}": (f"{placed.key}.{name}", tensor)
        for name, tensor in placed.part.named_parameters()
    }
