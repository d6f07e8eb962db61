"""graft: adapt a language model to your task the cheapest way that works, and prove it.

    graft.attach  detach  use  merge  unmerge     adapters on a model
    graft.save  load                              adapters on disk
    graft.LoRA  IA3  PrefixTuning ...             the methods, one per file of graft/methods
    graft.Method  Part                            what a method is made of
    graft.tune  evaluate  generate ...            the verbs, one per file of graft/verbs

Every name is loaded on first use, so that `import graft` costs nothing.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from graft import catalogue

if TYPE_CHECKING:  # mypy may have seen the modules of the same names first
    from graft.attach import attach as attach  # type: ignore[no-redef, unused-ignore]
    from graft.attach import detach as detach
    from graft.attach import merge as merge  # type: ignore[no-redef, unused-ignore]
    from graft.attach import unmerge as unmerge
    from graft.attach import use as use  # type: ignore[no-redef, unused-ignore]
    from graft.checkpoint import load as load
    from graft.checkpoint import save as save
    from graft.composition import Average as Average
    from graft.composition import Frozen as Frozen
    from graft.composition import Stack as Stack
    from graft.method import Method as Method
    from graft.method import Part as Part

__version__ = "0.1.0"

_HOMES = {
    "graft.attach": ("attach", "detach", "merge", "unmerge", "use"),
    "graft.checkpoint": ("load", "save"),
    "graft.composition": ("Average", "Frozen", "Stack"),
    "graft.method": ("Method", "Part"),
    **{f"graft.methods.{entry.name}": (entry.class_name,) for entry in catalogue.own().values()},
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
# `graft.methods` stays the package of methods; the verb of that name is for the command line.
_VERBS = catalogue.verbs().keys() - {"methods"} - _HOME.keys()

__all__ = sorted([*_HOME, *_VERBS])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _VERBS:
        value = importlib.import_module("graft.options.keywords").function(name)
    elif not name.startswith("_") and importlib.util.find_spec(f"graft.{name}"):
        return importlib.import_module(f"graft.{name}")
    else:
        raise AttributeError(f"module 'graft' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """Keeps `graft.attach` and `graft.anatomy` the public functions, although packages of these names exist too."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing graft.attach binds the package to its parent; `from graft.attach import ...` does not need that.
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
