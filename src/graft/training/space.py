"""Can the run be written? Asked before training starts, not when the first checkpoint is due."""

import shutil
from pathlib import Path

from graft.attach import Adapter
from graft.errors import BadInput
from graft.files import write_text
from graft.training.resume import KEPT, tensors_of

SLACK = 50 * 2**20  # for logs, samples and what other programs write meanwhile
MOMENTS = 2  # tensors that the optimizer keeps for each one that trains


def check_writable(folder: Path) -> None:
    """Write a small file in the folder and remove it, and folders made for it. Raises BadInput when that fails."""
    probe = folder / ".probe"
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        write_text(probe, "graft writes here\n")
        probe.unlink()
    finally:
        for each in new:
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()


def check_room(folder: Path, adapter: Adapter) -> None:
    """Raise BadInput when the disk has not enough room for the checkpoints and the adapter."""
    tensors = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(adapter).values())
    checkpoint = tensors * (2 + MOMENTS)  # the tensors now and at their best, and the optimizer's
    needed = checkpoint * (KEPT + 1) + tensors + SLACK
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise BadInput(
            f"{folder}: {free / 2**20:,.0f} MiB are free and the run needs up to {needed / 2**20:,.0f} MiB for "
            "checkpoints and the adapter. Free some space, or choose a --folder on another disk."
        )
