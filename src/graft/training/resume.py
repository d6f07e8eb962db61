"""Checkpoints of a run, without pickle: tensors in safetensors, everything else in JSON.

A checkpoint is a folder `step-N`, written aside and renamed, so that one that is there is whole; `complete.json` holds
the size of every file, so that one damaged afterwards is not picked up either.

    tensors.safetensors    the adapter's trainable tensors and running state, by part
    best.safetensors       the same at the best validation loss, where that was at another step
    optimizer.safetensors  the optimizer's state, `NUMBER.NAME`, and optimizer.json its groups and what is no tensor
    random.safetensors     the generators of torch and its devices, and random.json those of Python and NumPy
    scheduler.json, trainer_state.json, facts.json
"""

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from graft.attach import Adapter
from graft.errors import BadInput
from graft.files import writing_folder

KEPT = 2  # checkpoints of a run that are kept: the newest, and one in case a disk damages it
COMPLETE = "complete.json"


def tensors_of(adapter: Adapter) -> dict[str, Tensor]:
    """Everything of an adapter that training changes, by name: parts with buffers, and tensors trained in place."""
    found = {
        f"{placed.key}.{name}": tensor
        for placed in adapter.placed
        for name, tensor in placed.part.state_dict(keep_vars=True).items()
    }
    return found | {path: adapter.model.get_parameter(path) for path in adapter.trained}


def copy_of(adapter: Adapter) -> dict[str, Tensor]:
    """A copy of these tensors, in main memory."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors_of(adapter).items()}


def put(adapter: Adapter, tensors: Mapping[str, Tensor], source: str) -> None:
    """Write such tensors back. Raises BadInput, naming `source`, when they are not those of this adapter."""
    adapter.resize({name: tensor.shape for name, tensor in tensors.items()})
    own = tensors_of(adapter)
    if tensors.keys() != own.keys():
        raise BadInput(f"{source} holds other tensors than this adapter: {sorted(tensors.keys() ^ own.keys())[:5]}.")
    if wrong := [name for name in own if own[name].shape != tensors[name].shape]:
        seen, expected = tuple(tensors[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise BadInput(f"{source}: {wrong[0]} has shape {seen}, not {expected}.")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def write(
    folder: Path,
    step: int,
    adapter: Adapter,
    optimizer: Optimizer,
    scheduler: Any,
    state: Any,
    facts: Mapping[str, Any],
    best: Mapping[str, Tensor] | None,
) -> Path:
    """Write `folder`/step-N and remove all but the newest two. `state` is the TrainerState."""
    target = folder / f"step-{step:08d}"
    with writing_folder(target) as aside:
        save_file(copy_of(adapter), aside / "tensors.safetensors")
        if best is not None:
            save_file(dict(best), aside / "best.safetensors")
        _save_optimizer(aside, optimizer)
        _save_random(aside)
        (aside / "scheduler.json").write_text(json.dumps(_plain(scheduler.state_dict())), "utf-8")
        state.save_to_json(str(aside / "trainer_state.json"))
        (aside / "facts.json").write_text(json.dumps(facts, indent=1), "utf-8")
        sizes = {path.name: path.stat().st_size for path in sorted(aside.iterdir())}
        (aside / COMPLETE).write_text(json.dumps(sizes, indent=1), "utf-8")
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return [path for path in sorted(folder.glob("step-*")) if _whole(path)] if folder.is_dir() else []


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """What the run said about itself when it wrote the checkpoint."""
    return json.loads((checkpoint / "facts.json").read_text("utf-8"))


def read_tensors(checkpoint: Path, name: str = "tensors") -> dict[str, Tensor] | None:
    """The tensors of the adapter, or with "best" those of its best step; None where there are none."""
    path = checkpoint / f"{name}.safetensors"
    return load_file(path) if path.exists() else None


def read_optimizer(checkpoint: Path, optimizer: Optimizer, scheduler: Any) -> None:
    """Put the state of the optimizer and of the schedule back."""
    stored = json.loads((checkpoint / "optimizer.json").read_text("utf-8"))
    groups = stored["groups"]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**load_file(checkpoint / "optimizer.safetensors"), **stored["numbers"]}.items():
        number, *within, name = key.split(".")
        entry = state.setdefault(int(number), {})
        for each in within:
            entry = entry.setdefault(each, {})
        entry[name] = value
    for group in groups:
        group |= {"betas": tuple(group["betas"])} if "betas" in group else {}
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(json.loads((checkpoint / "scheduler.json").read_text("utf-8")))


def read_random(checkpoint: Path) -> None:
    """Put the random number generators back."""
    tensors = load_file(checkpoint / "random.safetensors")
    plain = json.loads((checkpoint / "random.json").read_text("utf-8"))
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors.pop("cpu"))
    if tensors:
        torch.cuda.set_rng_state_all([tensors[f"cuda.{number}"] for number in range(len(tensors))])


def _whole(path: Path) -> bool:
    try:
        sizes = json.loads((path / COMPLETE).read_text("utf-8"))
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):  # torn, or not a checkpoint: never picked up
        return False


def _save_optimizer(folder: Path, optimizer: Optimizer) -> None:
    stored = optimizer.state_dict()
    flat = dict(_flat(stored["state"], ""))
    tensors = {  # copies: bitsandbytes shares some of them
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in flat.items()
        if isinstance(value, Tensor)
    }
    numbers = {name: value for name, value in flat.items() if name not in tensors}
    save_file(tensors, folder / "optimizer.safetensors")
    facts = {"groups": stored["param_groups"], "numbers": numbers}
    (folder / "optimizer.json").write_text(json.dumps(_plain(facts)), "utf-8")


def _flat(state: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _save_random(folder: Path) -> None:
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    save_file(tensors, folder / "random.safetensors")
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    plain = {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached]}
    (folder / "random.json").write_text(json.dumps(plain), "utf-8")


def _plain(value: Any) -> Any:
    """The value as JSON has it; anything that is no number, text, list or mapping is an error, not a pickle."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")
