"""Text files as documents: found, split by a hash of their path, and laid end to end in memory-mapped token files."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graft.errors import BadInput
from graft.files import writing, writing_folder

SUFFIXES = frozenset({".py", ".rst", ".md", ".txt"})


@dataclass(frozen=True)
class Documents:
    """Files of text, as (root, path) pairs in a fixed order: those trained on, and those held out."""

    training: list[tuple[Path, Path]]
    held_out: list[tuple[Path, Path]]


def find_documents(folders: Sequence[str | Path], held_out: float = 0.01, seed: int = 0) -> Documents:
    """The text files (.py .rst .md .txt) below the folders, split by a hash of their path inside the folder.

    held_out: the share kept for measuring. A file stays on its side when others come or go.
    Raises BadInput, naming all of them, for folders that are missing or hold no text; and when a side is empty.
    """
    bad, found = [], []
    for root in map(Path, folders):
        paths = sorted(p for p in root.rglob("*") if p.suffix in SUFFIXES and p.is_file()) if root.is_dir() else []
        if not paths:
            bad.append(f"{root} ({'no text file (.py .rst .md .txt) in it' if root.is_dir() else 'no such folder'})")
        found += [(root, path) for path in paths]
    if bad or not found:
        raise BadInput(f"no text to train on: {'; '.join(bad) or 'no folder given'}.")
    sides: dict[bool, list[tuple[Path, Path]]] = {False: [], True: []}
    for root, path in found:
        sides[_share(path.relative_to(root).as_posix(), seed) < held_out].append((root, path))
    if not sides[False] or not sides[True]:
        which = "training" if not sides[False] else "held-out"
        raise BadInput(
            f"{len(found)} files and held_out={held_out} leave no {which} document. Give more files or another share."
        )
    return Documents(sides[False], sides[True])


def read_texts(documents: list[tuple[Path, Path]]) -> Iterator[str]:
    """The text of each document. Raises BadInput naming the file that cannot be read as UTF-8."""
    for _, path in documents:
        try:
            yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {path} as UTF-8 text: {error}. Convert or remove it.") from error


@dataclass(frozen=True)
class Packed:
    """Token files on disk: memory-mapped arrays of ids, the end token after each document."""

    training: np.ndarray
    held_out: np.ndarray
    held_out_bytes: int


def pack(documents: Documents, tokenizer: Any, folder: str | Path) -> Packed:
    """Tokenize the documents once into `folder`/training.npy and held_out.npy (uint16, or uint32 if ids need it).

    A folder packed before from the same files (name and size) with the same tokenizer is used again.
    """
    folder, stamp = Path(folder), _stamp(documents, tokenizer)
    if not (folder / "packed.json").is_file() or json.loads((folder / "packed.json").read_text())["stamp"] != stamp:
        with writing_folder(folder) as temporary:
            kind = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
            _write(temporary / "training.npy", documents.training, tokenizer, kind)
            _write(temporary / "held_out.npy", documents.held_out, tokenizer, kind)
            size = sum(path.stat().st_size for _, path in documents.held_out)
            (temporary / "packed.json").write_text(json.dumps({"stamp": stamp, "held_out_bytes": size}))
    facts = json.loads((folder / "packed.json").read_text())
    arrays = [np.load(folder / f"{side}.npy", mmap_mode="r") for side in ("training", "held_out")]
    return Packed(arrays[0], arrays[1], facts["held_out_bytes"])


def _write(target: Path, documents: list[tuple[Path, Path]], tokenizer: Any, kind: Any) -> None:
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    pieces, batch = [], []
    for text in read_texts(documents):
        batch.append(text)
        if len(batch) == 256:
            pieces.append(_encode(batch, tokenizer, end, kind))
            batch = []
    pieces.append(_encode(batch, tokenizer, end, kind))
    with writing(target) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(pieces))


def _encode(batch: list[str], tokenizer: Any, end: int, kind: Any) -> np.ndarray:
    if not batch:
        return np.empty(0, kind)
    rows = tokenizer.backend_tokenizer.encode_batch(batch, add_special_tokens=False)
    return np.concatenate([np.array([*row.ids, end], dtype=kind) for row in rows])


def _share(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on the name and the seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big") / 2**56


def _stamp(documents: Documents, tokenizer: Any) -> str:
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for side, files in asdict(documents).items():
        for root, path in files:
            digest.update(f"{side} {path.relative_to(root)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()
