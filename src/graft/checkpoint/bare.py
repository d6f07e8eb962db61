"""Writing the base of a grafted model: what `from_pretrained` reads, without a trace of any adapter."""

from pathlib import Path
from typing import Any

from torch import nn

from graft.checkpoint.fingerprint import untouched
from graft.errors import BadInput
from graft.files import writing_folder


def save_base(model: nn.Module, folder: str | Path, *, tokenizer: Any = None) -> Path:
    """Write the base for `from_pretrained` to read, as it was before anything was attached, merged or trained in place.

    Raises BadInput when the folder exists and is not empty.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput(f"{target} is there already, and saving would replace it. Choose another folder.")
    kept = dict(untouched(model))
    state = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        if ".graft." not in f".{key}":
            state[key] = kept.get(key, tensor.detach())
    with writing_folder(target) as temporary:
        model.save_pretrained(temporary, state_dict=state)  # type: ignore[operator]
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
    return target
