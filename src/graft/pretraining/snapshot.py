"""Snapshots of a run that survive `kill -9`: numbered folders, written aside and renamed; safetensors and JSON."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from graft.errors import BadInput
from graft.files import writing_folder
from graft.pretraining.optimizers import restore, tensors


@dataclass
class Counters:
    """How far a run is: optimizer steps, tokens seen, seconds spent (all sittings together)."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save_snapshot(folder: Path, model: nn.Module, made: list[Optimizer], counters: Counters, settings: dict) -> Path:
    """Write `folder`/step-N and remove all but the two newest."""
    target = folder / f"step-{counters.step:08d}"
    with writing_folder(target) as temporary:
        save_file(_weights(model), temporary / "model.safetensors")
        save_file(tensors(made), temporary / "optimizer.safetensors")
        (temporary / "counters.json").write_text(json.dumps({**asdict(counters), "settings": settings}, indent=1))
    for old in snapshots(folder)[:-2]:
        shutil.rmtree(old)
    return target


def load_snapshot(path: Path, model: nn.Module, made: list[Optimizer], settings: dict) -> Counters:
    """Put a snapshot back into a model and its optimizers. Raises BadInput when it was made with other settings."""
    facts = json.loads((path / "counters.json").read_text())
    before = facts.pop("settings")
    changed = [
        f"{name}: {before.get(name)!r} then, {settings.get(name)!r} now"
        for name in sorted({*before, *settings})
        if before.get(name) != settings.get(name)
    ]
    if changed:
        raise BadInput(
            f"{path} was made with other settings: {'; '.join(changed)}. Use the same ones, or another output folder."
        )
    stored, weights = load_file(path / "model.safetensors"), _weights(model)
    if stored.keys() != weights.keys():
        raise BadInput(f"{path} holds other tensors than the model: {sorted(stored.keys() ^ weights.keys())[:5]}.")
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(stored[name])
    restore(made, load_file(path / "optimizer.safetensors"))
    return Counters(**facts)


def snapshots(folder: Path) -> list[Path]:
    """The complete snapshots of a run, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    # named_parameters gives a tied tensor once, and its data shares memory with the model: good for both directions.
    return {name: parameter.data for name, parameter in model.named_parameters()}
