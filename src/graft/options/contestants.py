"""The settings of the contestants of a comparison: `--lora.rank 8`; several values make a contestant of each."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from graft.options.fields import Field, fields_of, is_list
from graft.options.recipe import Entry
from graft.options.settings import Setting

OPTION = "contestants"


def choose(
    arguments: Sequence[str], entries: Sequence[Entry], default: Sequence[str]
) -> tuple[tuple[str, ...], list[Entry]]:
    """Who takes part, found before parsing because their settings are options too: as typed, written, or by default.

    Also gives the recipe's entries without the settings of contestants that the arguments left out.
    """
    typed: list[str] = []
    for at, word in enumerate(arguments):
        if word.startswith(f"--{OPTION}="):
            typed.append(word.partition("=")[2])
        elif word == f"--{OPTION}":
            typed += takewhile(lambda each: not each.startswith("--"), arguments[at + 1 :])
    value = next((entry.value for entry in entries if entry.key == OPTION), None)
    written = (value,) if isinstance(value, str) else value or ()
    asked = tuple(typed) or written or tuple(default)
    left_out = {_name(word) for word in written} - {_name(word) for word in asked}
    return asked, [entry for entry in entries if entry.key.partition(".")[0] not in left_out]


def _name(word: str) -> str:
    return word.partition("=")[0].strip()


def settings_of(words: Sequence[str]) -> list[Setting]:
    """The settings of each contestant, several values of each, and its learning rate. Imports methods, so torch."""
    if not words:
        return []
    from graft.method import Method
    from graft.tournament.contestant import fields_of as classes_of

    found = []
    for name, settings in classes_of(words).items():
        for key, kind in settings.items():
            if kind is Method:
                rate = Field(key, tuple[float, ...], "peak learning rate, which is then not searched", None)
                found.append(Setting(rate, (f"{name}.{key}",), name))
                continue
            field = next(field for field in fields_of(kind) if field.name == key.rpartition(".")[2])
            several = field.type if is_list(field.type) else tuple[field.type, ...]  # type: ignore[name-defined]
            found.append(Setting(replace(field, name=key, type=several), (f"{name}.{key}",), name))
    return found
