"""Writing files: all of it or nothing, in the place of what was there, and what failed said as it is."""

import errno
import os
from pathlib import Path

import pytest

from graft.errors import BadInput
from graft.files import write_text, writing, writing_folder

WRITERS = [writing, writing_folder]


def fill(path: Path, text: str) -> None:
    """Write a file at the path, or in the folder there."""
    (path / "inner.txt" if path.is_dir() else path).write_text(text, encoding="utf-8")


def content(path: Path) -> str:
    return (path / "inner.txt" if path.is_dir() else path).read_text(encoding="utf-8")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_target_is_replaced_and_nothing_else_is_left(writer: type, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    for text in ("first", "second"):
        with writer(target) as temporary:
            fill(temporary, text)
            assert not target.exists() or content(target) == "first"
    assert content(target) == "second"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("writer", WRITERS)
def test_an_error_leaves_what_was_there(writer: type, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with writer(target) as temporary:
        fill(temporary, "old")
    with pytest.raises(ZeroDivisionError), writer(target) as temporary:
        fill(temporary, "new")
        raise ZeroDivisionError
    assert content(target) == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("writer", WRITERS)
def test_permissions_are_those_of_an_ordinary_file(writer: type, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir() if writer is writing_folder else plain.touch()
    with writer(tmp_path / "target") as temporary:
        fill(temporary, "text")
    assert (tmp_path / "target").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("writer", WRITERS)
def test_a_failing_read_is_no_failing_write(writer: type, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), writer(tmp_path / "target"):
        (tmp_path / "absent").read_text()
    with pytest.raises(OSError, match="sector"), writer(tmp_path / "target"):
        raise OSError(errno.EIO, "bad sector")  # as reading an open file fails: no name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_failing_write_names_the_target(writer: type, tmp_path: Path) -> None:
    target = tmp_path / "target"
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with full, pytest.raises(BadInput, match=f"cannot write {target}: No space left"), writer(target):
        full.write(b"x")
    with pytest.raises(BadInput, match=f"cannot write {target}: No such file"), writer(target) as temporary:
        (temporary / "no folder" / "file").write_text("x")
    assert not list(tmp_path.iterdir())


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=r"cannot write .*inner"):
        write_text(tmp_path / "file" / "inner", "x")
    with pytest.raises(BadInput, match=os.strerror(errno.EISDIR)):
        write_text(tmp_path / "folder", "x")
    with pytest.raises(BadInput, match=os.strerror(errno.ENOTDIR)), writing_folder(tmp_path / "file"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_whose_place_cannot_be_taken_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    with writing_folder(target) as temporary:
        fill(temporary, "old")
    replace, calls = os.replace, []

    def fails_once(source: Path, end: Path) -> None:
        calls.append(end)
        if calls.count(target) == 1 and end == target:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, end)

    monkeypatch.setattr(os, "replace", fails_once)
    with pytest.raises(BadInput, match="cannot write"), writing_folder(target) as temporary:
        fill(temporary, "new")
    assert content(target) == "old" and list(tmp_path.iterdir()) == [target]
