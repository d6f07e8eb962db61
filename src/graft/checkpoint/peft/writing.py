"""Writing an adapter of graft as a PEFT checkpoint, where PEFT has the same function as the form that is served."""

import json
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from graft.attach import Adapter, require
from graft.checkpoint.peft import (
    drawn,
    gated,
    heads,
    low_rank,
    norms,
    products,
    rescaling,
    rotations,
    triplets,
    virtual,
)
from graft.checkpoint.peft.form import CONFIG, TENSORS, Written, task
from graft.errors import BadInput, Refused
from graft.files import writing_folder
from graft.methods.adalora import AdaLoRA
from graft.methods.dora import DoRA
from graft.methods.fourier_ft import FourierFT
from graft.methods.hra import HRA
from graft.methods.ia3 import IA3
from graft.methods.llama_adapter import LLaMAAdapter
from graft.methods.ln_tuning import LNTuning
from graft.methods.loha import LoHa
from graft.methods.lokr import LoKr
from graft.methods.lora import LoRA
from graft.methods.oft import OFT
from graft.methods.p_tuning import PTuning
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.vera import VeRA


def export(model: nn.Module, name: str, folder: str | Path) -> Path:
    """Write adapter `name` for `PeftModel.from_pretrained` on the plain base: two files, atomically.

    Raises Refused, saying why, for an adapter that PEFT cannot express, BadInput when the folder holds other things.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or {path.name for path in target.iterdir()} - {CONFIG, TENSORS}):
        raise BadInput(
            f"{target} is there already and holds other things, which would be replaced. Choose another folder."
        )
    adapter = require(model, name).adapters[name]
    with writing_folder(target) as temporary:
        write(adapter, temporary)
    return target


def write(adapter: Adapter, folder: Path) -> None:
    """Write PEFT's two files into a folder that is there. Raises Refused for an adapter that PEFT cannot express."""
    model, anatomy, adapter = adapter.model, require(adapter.model).anatomy, _served(adapter)
    made = _written(adapter)
    modules, tensors = heads.written(adapter, anatomy, made.prefix)
    config = {
        "auto_mapping": None,
        "base_model_name_or_path": model.config._name_or_path or None,  # type: ignore[union-attr]
        "inference_mode": True,
        "modules_to_save": modules or None,
        "revision": getattr(model.config, "_commit_hash", None),
        "task_type": task(model, anatomy),
        **made.settings,
    }
    every = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in (made.tensors | tensors).items()}
    save_file(every, folder / TENSORS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _served(adapter: Adapter) -> Adapter:
    """The adapter as it is served: PiSSA, for one, as a LoRA."""
    parts = adapter.deployed()
    placed = tuple(replace(item, part=parts[item.key]) for item in adapter.placed if item.key in parts)
    return replace(adapter, method=adapter.method.serving(), placed=placed)


def _written(adapter: Adapter) -> Written:
    anatomy, method = require(adapter.model).anatomy, adapter.method
    if adapter.merged:
        raise Refused(
            f"{adapter.name!r} is merged into the base, which PEFT's files would be put on again. Unmerge it."
        )
    if len(method.methods()) > 1:
        names = " + ".join(type(term).__name__ for term in method.methods())
        raise Refused(f"PEFT has one method in an adapter, this is {names}. Serve it with graft.")
    if getattr(method, "decomposed", False):
        raise Refused(f"PEFT has no {type(method).__name__} with trained magnitudes. Serve it with graft, or merge it.")
    match method:
        case LoRA() | DoRA():
            return low_rank.written(adapter, anatomy, method)
        case IA3():
            return rescaling.written(adapter, anatomy)
        case LoHa() | LoKr():
            return products.written(adapter, anatomy, method)
        case HRA():
            return rotations.written_reflections(adapter, anatomy, method)
        case OFT():
            return rotations.written_rotations(adapter, anatomy, method)
        case VeRA():
            return drawn.written_vectors(adapter, anatomy, method)
        case FourierFT():
            return drawn.written_spectra(adapter, anatomy, method)
        case LNTuning():
            return norms.written(adapter, anatomy)
        case PromptTuning() | PTuning():
            return virtual.written_prompt(adapter, anatomy, method)
        case AdaLoRA():
            return triplets.written(adapter, anatomy, method)
        case LLaMAAdapter():
            return gated.written(adapter, anatomy, method)
        case PrefixTuning():
            return virtual.written_prefix(adapter, anatomy, method)
    raise Refused(f"PEFT has no {type(method).__name__}. Serve it with graft.")
