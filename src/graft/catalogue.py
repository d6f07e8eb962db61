"""What graft has: its verbs and its methods, read from their files without importing them.

A file in `verbs/` is a command; a file in `methods/` is a method. Nothing is registered anywhere. The class of a
method is the one whose name is the file's without underscores: `ladder_side.py` defines `LadderSide`. Reading the
syntax tree instead of importing keeps `import graft` and `graft --help` free of torch.
"""

import ast
import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from graft.errors import BadInput

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One verb or method: its file's name, the class in it and the first line of that class's docstring."""

    name: str
    class_name: str
    summary: str


@cache
def verbs() -> dict[str, Entry]:
    """Every verb by name, in alphabetical order; its summary is the first line of its `Options` docstring."""
    return _read(_HERE / "verbs", lambda name: "options")


@cache
def methods() -> dict[str, Entry]:
    """Every method by name, in alphabetical order."""
    return _read(_HERE / "methods", lambda name: name.replace("_", ""))


def method(name: str) -> Entry:
    """The method called `name`, by its file or its class, in any case. Raises BadInput with the nearest name."""
    known = {key.lower(): entry for entry in methods().values() for key in (entry.class_name, entry.name)}
    word = name.strip().lower()
    if word not in known:
        near = [known[key].name for key in difflib.get_close_matches(word, known, 1)]
        hint = f'; the nearest is "{near[0]}"' if near else ""
        raise BadInput(f'there is no method "{name}"{hint}. There are: {", ".join(methods())}.')
    return known[word]


def method_class(name: str) -> type:
    """Import the class of the method called `name`. Raises BadInput as `method` does."""
    entry = method(name)
    return getattr(importlib.import_module(f"graft.methods.{entry.name}"), entry.class_name)


def _read(folder: Path, class_of: Callable[[str], str]) -> dict[str, Entry]:
    found = {}
    for path in sorted(folder.glob("[a-z]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name.lower() == class_of(path.stem):
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                found[path.stem] = Entry(path.stem, node.name, summary)
    return found
