"""Writing files so that a reader never sees half of one: made in a folder aside, flushed to disk, renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graft.errors import BadInput

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def writing(target: str | Path) -> Iterator[Path]:
    """Give a path to write a file to; on leaving without an error it replaces the target atomically.

    Raises BadInput, naming the target and the cause, when the disk is full or the folder cannot be written. What else
    goes wrong within the `with`, such as a file that cannot be read, is raised as it is.
    """
    with _aside(Path(target)) as temporary:
        yield temporary


@contextmanager
def writing_folder(target: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes the target, replacing an old one. Raises as `writing` does."""
    with _aside(Path(target)) as temporary:
        temporary.mkdir()
        yield temporary


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises BadInput when the target cannot be written."""
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A path in a new folder beside the target; what is there in the end takes the target's place."""
    with _told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    temporary, old = aside / target.name, aside / f"{target.name}.old"
    try:
        with _told(target, within=aside):
            yield temporary
        with _told(target):
            for path in (temporary, *temporary.rglob("*")):
                _fsync(path)
            if temporary.is_dir() and target.is_dir():
                os.replace(target, old)  # a folder takes the place of an empty one only
            os.replace(temporary, target)
            _fsync(target.parent)
    finally:
        if old.exists() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(aside)


@contextmanager
def _told(target: Path, within: Path | None = None) -> Iterator[None]:
    """Say of a failing write what could not be written: of any failure, or of those at a file `within`."""
    try:
        yield
    except OSError as error:
        if within is not None and not _is_write(error, within):
            raise
        parent = next(each for each in (target.parent, *target.parent.parents) if each.exists())
        why = f"{error.strerror or error}. Free some space or choose another folder."
        raise BadInput(
            f"cannot write {target}: " + (why if parent.is_dir() else f"{parent} is a file. Choose another folder.")
        ) from error


def _is_write(error: OSError, within: Path) -> bool:
    """Opening a file names it; writing to an open one does not, and then only the cause tells it from reading."""
    if isinstance(error.filename, str | bytes):
        return Path(os.fsdecode(error.filename)).is_relative_to(within)
    return error.errno in NO_ROOM


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
