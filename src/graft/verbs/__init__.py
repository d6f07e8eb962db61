"""What a user does, one file each: `graft NAME` is `graft.NAME(**options)` is `run(Options(**options))` in NAME.py.

A verb's file holds

    @dataclass(frozen=True)
    class Options:
        '''The first line is the command's help. The rest is shown by `graft NAME --help`.'''

        model: Annotated[str, "required: without a default, so it may also be given by position, as may the first"]
        rank: Annotated[int, "every field carries its help; the type may be str, int, float, bool, Path, Literal, "
                             "tuple[X, ...], dict[str, X], X | None"] = 8
        method: Annotated["str | Method", "a field of this name takes a method; `run` finds it built"] = "lora"

    def run(options: Options) -> Result: ...

and imports nothing heavy at its top: torch, transformers and everything that needs them load inside `run`.
`run` raises GraftError for what it refuses, prints nothing to standard output (progress goes to standard error) and
returns a `Result`. An interruption that saved its work says so: `raise KeyboardInterrupt("saved; continue with …")`.
"""

import dataclasses
import difflib
import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from graft.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console


class Result(Protocol):
    """What a verb returns: shown to a person, or as JSON to a machine, with the exit code of the command."""

    exit_code: int

    def show(self, console: "Console") -> None:
        """Print the result for a person."""

    def as_json(self) -> dict[str, Any]:
        """Give the result as plain values."""


def module(name: str) -> ModuleType:
    """Import the file of one verb."""
    return importlib.import_module(f"graft.verbs.{name}")


def run(name: str, options: dict[str, Any]) -> Result:
    """Run one verb. A method given by name is built with its defaults. Raises BadInput naming unknown options."""
    verb = module(name)
    known = [field.name for field in dataclasses.fields(verb.Options)]
    if unknown := [option for option in options if option not in known]:
        near = {option: difflib.get_close_matches(option, known, 1) for option in unknown}
        said = ", ".join(f"{option} (nearest: {near[option][0]})" if near[option] else option for option in unknown)
        raise BadInput(f"graft {name} has no option {said}. It has: {', '.join(known)}.")
    chosen = verb.Options(**options)
    method = getattr(chosen, "method", None)
    if isinstance(method, str) and (method or verb.Options.method):  # "" is none where none is the default
        from graft.method import named

        chosen = dataclasses.replace(chosen, method=named(method, {}))
    return verb.run(chosen)
