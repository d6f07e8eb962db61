"""Reading files that a stranger wrote: what they declare is checked against what is there, before any of it is used.

A safetensors file is eight bytes (the length of a header), a JSON header, and the tensors' bytes. Lengths, types,
shapes and offsets are checked against the size of the file, so that no declared number decides how much is allocated.
"""

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from graft.errors import BadInput

HEADER_LIMIT = 32 * 2**20
JSON_LIMIT = 64 * 2**20
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%+-]{0,511}")
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# How files begin that are often taken for safetensors.
MAGICS = {
    b"PK\x03\x04": "a PyTorch pickle (zip)", b"\x80\x02": "a pickle", b"\x80\x03": "a pickle", b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle", b"GGUF": "a GGUF file", b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]


def inside(folder: Path, name: str) -> Path | None:
    """The file `name` of a folder, or None where there is none. Raises BadInput for a link that leads out of it.

    A snapshot of the Hub's cache links to the `blobs` beside it, and nowhere else.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    real, home = path.resolve(), folder.resolve()
    allowed = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(real.is_relative_to(place) for place in allowed):
        raise BadInput(
            f"{path} is a link to {real}, outside the adapter's folder: it is not read. Put a copy in its place."
        )
    if not real.is_file():
        raise BadInput(f"{path} is not a file. Get the adapter again from where it came from.")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadInput for a file that is too large, not UTF-8 or not a JSON object."""
    size = path.stat().st_size
    if size > JSON_LIMIT:
        raise BadInput(
            f"{path}: {size:,} bytes is no description of an adapter (limit {JSON_LIMIT:,}). It is not read."
        )
    try:
        found = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path}: not readable as JSON ({error}). Get the adapter again from where it came from."
        ) from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(found).__name__}.")
    return found


def read_header(path: Path) -> dict[str, Entry]:
    """What a safetensors file declares, checked against its size; no tensor is read.

    Raises BadInput for anything that is not exactly a safetensors file with plain names and known types.
    """
    header, room = _header(path)
    spans = sorted(_span(path, name, said) for name, said in header.items())
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            raise _wrong(path, f"tensor {name!r} begins at byte {begin:,} where {end:,} was due")
        end = stop
    if end != room:
        raise _wrong(path, f"its tensors take {end:,} bytes, the file holds {room:,}; it was cut off or added to")
    return {name: Entry(DTYPES[said["dtype"]], tuple(said["shape"])) for name, said in header.items()}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file without its metadata, and the number of bytes that follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(24)
        for magic, kind in MAGICS.items():
            # The length of a header, 640 bytes for one, may look like the beginning of a pickle; its JSON tells.
            if start.startswith(magic) and start[8:9] != b"{":
                raise _wrong(
                    path, f"this is {kind}, not safetensors. Graft never loads pickles; ask for a safetensors file"
                )
        if len(start) < 8:
            raise _wrong(path, f"{size} bytes are too few for a safetensors file; it was cut off")
        (length,) = struct.unpack("<Q", start[:8])
        if length > size - 8:
            raise _wrong(
                path, f"its header claims {length:,} bytes, the file has {size:,}; it was cut off or is not safetensors"
            )
        if length > HEADER_LIMIT:
            raise _wrong(path, f"its header of {length:,} bytes is over the limit of {HEADER_LIMIT:,}")
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _wrong(path, "its header is not a JSON object")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise _wrong(path, "its metadata is not a map of strings")
    return header, size - 8 - length


def read_tensors(path: Path, header: Mapping[str, Entry]) -> dict[str, Tensor]:
    """All tensors of a file whose header was checked. Raises BadInput for numbers that are not finite."""
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in header}
    broken = [
        name for name, tensor in found.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if broken:
        raise _wrong(
            path, f"{listed(broken)} {'hold' if len(broken) > 1 else 'holds'} NaN or infinity; training had diverged"
        )
    return found


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names for a message: the first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _span(path: Path, name: str, said: Any) -> tuple[int, int, str]:
    """Where a tensor's bytes lie, once everything said about it fits together."""
    if not NAME.fullmatch(name) or ".." in name:
        raise _wrong(path, f"{name[:80]!r} is no name for a tensor")
    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise _wrong(path, f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _wrong(path, f"tensor {name!r} is of type {dtype!r}; known are {', '.join(DTYPES)}")
    if not _whole(shape) or len(shape) > 8:
        raise _wrong(path, f"tensor {name!r} has an impossible shape")
    if not _whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _wrong(path, f"tensor {name!r} has impossible offsets")
    needs = math.prod(shape) * torch.empty(0, dtype=DTYPES[dtype]).element_size()
    if needs != offsets[1] - offsets[0]:
        raise _wrong(path, f"tensor {name!r} of shape {shape} {dtype} is given {offsets[1] - offsets[0]:,} bytes")
    return offsets[0], offsets[1], name


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _wrong(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: {what}. Nothing was loaded.")
