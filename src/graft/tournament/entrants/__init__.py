"""The entrants, one file each, found by file: `find("tfidf")` is the class in `tfidf.py`."""

import difflib
import importlib
import pkgutil

from graft.errors import BadInput
from graft.tournament.entrant import Entrant


def names() -> list[str]:
    """The names of all entrants, which are those of their files; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> type[Entrant]:
    """The class of an entrant. Raises BadInput with the nearest name for an unknown one."""
    word = name.strip().lower()
    if word not in names():
        near = difflib.get_close_matches(word, names(), 1)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise BadInput(f"there is no entrant {name!r}{hint}. There are: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{word}")
    return next(
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Entrant) and found.__module__ == module.__name__
    )


def entrants() -> dict[str, type[Entrant]]:
    """Every entrant by name, in alphabetical order."""
    return {name: find(name) for name in names()}
