"""What graft has: its verbs and its methods, read from their files without importing them.

A file in `verbs/` is a command; a file in `methods/` is a method. Nothing is registered anywhere. The class of a
method is the one whose name is the file's without underscores: `ladder_side.py` defines `LadderSide`. Looking for it in
the text instead of importing keeps `import graft` and `graft --help` free of torch, and quick.

Methods from outside are named by whoever runs graft, and never by the files of an adapter:

    a package        its entry points of the group `graft.methods`, as in  ssf = "my_package.ssf:SSF"
    a file           given wherever a method's name is (`--method ./ssf.py`), or in the variable GRAFT_METHODS

A file becomes the module `graft.methods.NAME`, as if it were in that folder.
"""

import ast
import difflib
import importlib
import importlib.util
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from graft.errors import BadInput, sentence

VARIABLE = "GRAFT_METHODS"
_HERE = Path(__file__).parent
_GROUP = "graft.methods"
# A class or a function of a file, and the first line of its docstring.
_TOP = re.compile(r'^(?:class|def) (\w+)[^\n]*(?:\n[ \t]+r?"""(.*?)(?:"""|$))?', re.MULTILINE)
_given: dict[Path, "Entry"] = {}  # the files of methods that this process was given


@dataclass(frozen=True)
class Entry:
    """One verb or method: its file's name, the class in it and the first line of that class's docstring.

    A method from outside has a `home`, the module it is imported from, and an `origin`, which says where one gets it;
    one that was given as a file has its `path`.
    """

    name: str
    class_name: str
    summary: str
    home: str = ""
    origin: str = ""
    path: Path | None = None


@cache
def verbs() -> dict[str, Entry]:
    """Every verb by name, in alphabetical order; its summary is the first line of its `Options` docstring."""
    return _read(_HERE / "verbs", lambda name: "options")


@cache
def own() -> dict[str, Entry]:
    """Every method that comes with graft, in alphabetical order."""
    return _read(_HERE / "methods", _class_of)


def methods() -> dict[str, Entry]:
    """Every method by name, in alphabetical order, those from outside among them.

    Raises BadInput where two have one name, and for files that hold no method.
    """
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        _file(path)
    found = dict(own())
    for entry in (*_installed(), *_given.values()):
        _add(entry, found)
    return dict(sorted(found.items()))


def method(name: str) -> Entry:
    """The method called `name`, by its file or its class, in any case. Raises BadInput with the nearest name."""
    known = {key.lower(): entry for entry in methods().values() for key in (entry.class_name, entry.name)}
    word = name.strip().lower()
    if (bare := word.partition("(")[0]) != word and bare in known:
        shell = f"--method {known[bare].name} --{known[bare].name}.SETTING VALUE"
        raise BadInput(
            f'"{name}": give settings beside the name, by {shell}, or {known[bare].class_name}(...) in Python.'
        )
    if word not in known:
        near = [known[key].name for key in difflib.get_close_matches(word, known, 1)]
        hint = f'; the nearest is "{near[0]}"' if near else ""
        raise BadInput(f'there is no method "{name}"{hint}. There are: {", ".join(methods())}.')
    return known[word]


def asked(word: str) -> Entry:
    """The method that the user asks for: by name, or as a file, "./ssf.py", whose code may then run.

    Never for what stands in a file of somebody else's. Raises BadInput as `method` does, and where the file has none.
    """
    return method(_file(word.strip()).name if word.strip().endswith(".py") else word)


def method_class(name: str) -> type:
    """Import the class of the method called `name`. Raises BadInput as `method` does, and where importing fails."""
    entry = method(name)
    home = entry.home or f"graft.methods.{entry.name}"
    if not entry.origin:
        return getattr(importlib.import_module(home), entry.class_name)
    try:
        return getattr(_loaded(home, entry.path) if entry.path else importlib.import_module(home), entry.class_name)
    except (Exception, SystemExit) as error:
        where = entry.path or entry.origin
        raise BadInput(f"{where} cannot be imported: {type(error).__name__}: {sentence(error)}") from error


def outside(kind: type) -> Entry | None:
    """The entry of a method's class that is not graft's own; one is made up where nobody named its file."""
    home, name = kind.__module__, kind.__module__.rpartition(".")[2]
    if home == f"graft.methods.{name}" and name in own():
        return None
    known = (each for each in (*_given.values(), *_installed()) if each.home == home)
    return next(known, None) or Entry(name, kind.__name__, "", home, f"the Python module {home}")


def written(kind: Any) -> str:
    """How the user names a method: one that came as a file by the place of that file."""
    entry = outside(kind)
    return str(entry.path) if entry and entry.path else kind.slug()


def environment(kinds: Iterable[type]) -> str:
    """What a command begins with that is to know the files of these methods; "" where none came as a file."""
    files = [str(entry.path) for kind in kinds if (entry := outside(kind)) and entry.path]
    return f"{VARIABLE}={shlex.quote(os.pathsep.join(files))} " if files else ""


def fault(error: BaseException) -> str:
    """Where in a method from outside an error came up, as "ssf.py:12"; "" where it was in none."""
    homes = {entry.home: entry for entry in (*_given.values(), *_installed())}
    frames = traceback.walk_tb(error.__traceback__)
    lines = [(homes[name], line) for frame, line in frames if (name := frame.f_globals.get("__name__")) in homes]
    return f"{lines[-1][0].path or lines[-1][0].origin}:{lines[-1][1]}" if lines else ""


def _add(entry: Entry, found: dict[str, Entry]) -> None:
    if entry.name in found:
        raise BadInput(
            f"two methods are called {entry.name}: one {_from(found[entry.name])}, one {_from(entry)}. "
            "Rename one, or leave it out."
        )
    found[entry.name] = entry


def _from(entry: Entry) -> str:
    return f"from {entry.origin}" if entry.origin else "of graft itself"


def _file(name: str) -> Entry:
    """The method in a file that the user named."""
    path = Path(name).expanduser().resolve()
    if path not in _given:
        try:
            source = path.read_bytes()
            ast.parse(source, str(path))
            entry = _entry(path, source.decode(), _class_of)
        except OSError as error:
            raise BadInput(f"{name}: cannot read a method there: {error.strerror}.") from error
        except (SyntaxError, ValueError) as error:
            raise BadInput(f"{name}:{getattr(error, 'lineno', None) or 1}: no Python: {error}") from error
        if entry is None or not path.stem.isidentifier():
            raise BadInput(
                f"{name} holds no method: graft looks for a class that is called like the file, without underscores, "
                "as in ssf.py for SSF. Define it, or rename the file."
            )
        import hashlib

        origin = f"{path.name} (sha256 {hashlib.sha256(source).hexdigest()[:12]})"
        entry = Entry(entry.name, entry.class_name, entry.summary, f"graft.methods.{entry.name}", origin, path)
        _add(entry, {each.name: each for each in (*own().values(), *_installed(), *_given.values())})
        _given[path] = entry
    return _given[path]


def _loaded(home: str, path: Path) -> object:
    if home not in sys.modules:
        spec = importlib.util.spec_from_file_location(home, path)
        assert spec is not None and spec.loader is not None
        sys.modules[home] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[home])
        except BaseException:
            del sys.modules[home]
            raise
    return sys.modules[home]


@cache
def _installed() -> tuple[Entry, ...]:
    """The methods of other packages. Their names are known from what is installed; nothing of them is imported yet."""
    from importlib import metadata

    found = []
    for point in metadata.entry_points(group=_GROUP):
        package = f"the package {point.dist.name} {point.dist.version}" if point.dist else "a package"
        name = point.module.rpartition(".")[2]
        found.append(Entry(name, point.attr, f"A method of {package}.", point.module, package))
    return tuple(found)


def _class_of(name: str) -> str:
    return name.replace("_", "")


def _read(folder: Path, class_of: Callable[[str], str]) -> dict[str, Entry]:
    found = (_entry(path, path.read_text(encoding="utf-8"), class_of) for path in sorted(folder.glob("[a-z]*.py")))
    return {entry.name: entry for entry in found if entry is not None}


def _entry(path: Path, text: str, class_of: Callable[[str], str]) -> Entry | None:
    for name, summary in _TOP.findall(text):
        if name.lower() == class_of(path.stem):
            return Entry(path.stem, name, summary.strip())
    return None
