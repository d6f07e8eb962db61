"""A run's folder: recipe.yaml, environment.json, metrics.jsonl, items.parquet, checkpoints/ and adapter/."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import yaml

from graft import catalogue
from graft.checkpoint.record import versions
from graft.errors import BadInput
from graft.files import write_text
from graft.method import Method, Sum
from graft.training import space
from graft.training.resume import checkpoints, read_facts

RECIPE, ADAPTER, ITEMS, CHECKPOINTS = "recipe.yaml", "adapter", "items.parquet", "checkpoints"
NOT_KEPT = ("resume", "dry_run", "show_mask", "method")  # of one call, not of the run; the method is written apart


def opened(folder: Path, resume: bool) -> Path | None:
    """Make sure that a run can live in the folder; the checkpoint to go on from, if there is one.

    Raises BadInput when the folder cannot be written, or holds what another run learned and this one does not resume.
    """
    space.check_writable(folder)
    found = checkpoints(folder / CHECKPOINTS)
    if resume and found:
        return found[-1]
    if found and not (facts := read_facts(found[-1]))["finished"]:
        stopped = f"{folder} holds a run that stopped at step {facts['step']}."
        raise BadInput(f"{stopped} Go on with it by --resume, or choose another --folder.")
    if found or (folder / ADAPTER).exists():
        raise BadInput(f"{folder} holds a finished run. Choose another --folder or --name, or remove it.")
    return None


def write_recipe(folder: Path, options: Any, method: Method) -> None:
    """Write the options of a verb as a recipe that the same verb reads. The method's settings stand under its name."""
    terms = method.terms if isinstance(method, Sum) else (method,)
    recipe: dict[str, Any] = {"method": "+".join(catalogue.written(type(term)) for term in terms)}
    for field in fields(options):
        if field.name not in NOT_KEPT:
            recipe[field.name] = _plain(getattr(options, field.name))
    for term in terms:
        recipe[term.slug()] = {field.name: _plain(getattr(term, field.name)) for field in fields(term)}
    write_text(folder / RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))


def write_environment(folder: Path, device: torch.device) -> None:
    """Write what the run ran on: bit-for-bit repetition needs the same."""
    facts = {
        "python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine(),
        "versions": versions(), "device": str(device), "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None, "command": sys.argv,
    }  # fmt: skip
    write_text(folder / "environment.json", json.dumps(facts, indent=1) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return dict(value) if isinstance(value, Mapping) else value
