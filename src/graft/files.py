"""Writing files so that a reader never sees half of one: a temporary name beside the target, fsync, rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graft.errors import BadInput


@contextmanager
def writing(target: str | Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder; on leaving without an error it replaces the target atomically.

    Raises BadInput, naming the target and the cause, when the disk is full or the folder cannot be written.
    """
    target = Path(target)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        # mkstemp makes the file private; a finished file gets what an ordinary open() would have given it.
        os.chmod(temporary, 0o666 & ~_umask())
        _fsync(temporary)
        os.replace(temporary, target)
        _fsync(target.parent)
    except OSError as error:
        raise BadInput(
            f"cannot write {target}: {error.strerror or error}. Free some space or choose another folder."
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


@contextmanager
def writing_folder(target: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside the target; left without an error it becomes the target, replacing an old one."""
    target = Path(target)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        for path in temporary.rglob("*"):
            _fsync(path)
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
            os.replace(temporary, target)
            shutil.rmtree(old)
        else:
            os.replace(temporary, target)
        _fsync(target.parent)
    except OSError as error:
        raise BadInput(
            f"cannot write {target}: {error.strerror or error}. Free some space or choose another folder."
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary)


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises BadInput when the target cannot be written."""
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
