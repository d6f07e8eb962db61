"""The page that adds a method, followed to the letter: once in this process, once with every command it shows."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graft
from docs.pages import DOCS, ROOT, Block, agrees, blocks
from graft import catalogue, cli, method

PAGE = DOCS / "how-a-method-is-written.md"
SET_UP = ("git ", "make ", ". ")  # what a clone needs once; the tests have it already


def of(blocks: list[Block], suffix: str) -> Block:
    return next(block for block in blocks if block.file and block.file.endswith(suffix))


def linked(root: Path) -> Path:
    """A working tree that is this one, with folders of its own where the page writes files."""
    own = ["src", "src/graft", "src/graft/methods", "tests", "tests/methods"]
    for folder in own:
        (root / folder).mkdir()
        for path in (ROOT / folder).iterdir():
            if f"{folder}/{path.name}" not in own and path.name != "__pycache__":
                (root / folder / path.name).symlink_to(path)
    (root / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    return root


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder where graft looks for methods instead of its own."""
    folder = tmp_path / "methods"
    folder.mkdir()
    read = catalogue._read
    package = importlib.import_module("graft.methods")
    monkeypatch.setattr(package, "__path__", [str(folder), *package.__path__])
    monkeypatch.setattr(catalogue, "methods", lambda: read(folder, lambda name: name.replace("_", "")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    yield folder
    sys.modules.pop("graft.methods.ssf", None)


def test_one_file_makes_a_method(
    methods: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's file in a folder of methods: found by name, on the command line, and the page's code runs."""
    printed = blocks(PAGE)
    (methods / "ssf.py").write_text(of(printed, "methods/ssf.py").text, "utf-8")
    (entry,) = catalogue.methods().values()
    assert entry.class_name == "SSF" and entry.summary
    command, shown = next(pair for block in printed for pair in block.commands() if "--help" in pair[0])
    assert cli.main(command.split()[1:]) == 0
    assert agrees(shown, capsys.readouterr().out)
    monkeypatch.setattr(graft, "SSF", method.find("ssf"), raising=False)
    code = next(block for block in printed if block.language == "python" and block.file is None)
    exec(compile(code.text, PAGE.name, "exec"), {})
    assert "Counts(trainable=" in capsys.readouterr().out
    assert (methods.parent / "runs" / "ssf" / "adapter.safetensors").is_file()


@pytest.mark.slow
def test_the_page_as_printed(tmp_path: Path) -> None:
    """Every file is written and everything is run, each in its own process, with the output that the page shows."""
    root = linked(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PATH": path, "COLUMNS": "80"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    ran = 0
    for block in blocks(PAGE):
        if block.file:
            (root / block.file).write_text(block.text, "utf-8")
        elif block.language == "python":
            run(sys.executable, "-c", block.text)
        for command, shown in block.commands() if block.language == "console" else ():
            if not command.startswith(SET_UP):
                assert shutil.which(command.split()[0], path=path), command
                seen = run("bash", "-c", command)
                assert agrees(shown, seen), f"{command} printed\n{seen}"
                ran += 1
    assert ran == 3
