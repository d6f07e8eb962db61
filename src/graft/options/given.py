"""What the user gave: entries of a recipe join the arguments (which win), and whole numbers are kept whole."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cyclopts import App
from cyclopts.argument import Argument, ArgumentCollection
from cyclopts.exceptions import CoercionError
from cyclopts.token import Token

from graft.errors import BadInput
from graft.options.fields import fits, is_mapping, scalars, type_name
from graft.options.recipe import Entry


@dataclass(frozen=True)
class Given:
    """A source of values for cyclopts, asked when the arguments are read and nothing is converted yet."""

    recipe: Sequence[Entry]
    only_typed: Sequence[str] = ()  # options that a recipe cannot hold

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Add the entries for options that the arguments leave open. Raises BadInput for all that do not fit."""
        known = {_plain(name): each for each in arguments for name in each.parameter.name or ()}
        known = {name: argument for name, argument in known.items() if name not in self.only_typed}
        wrong: list[str] = []
        tokens: list[tuple[Argument, Token]] = []
        for entry in self.recipe:
            argument = _find(entry.key, known)
            inside = _plain(entry.key) not in known
            if argument is None or not fits(entry.value, argument.hint, inside):
                wrong.append(f"{entry.where}: {_complaint(entry, argument, list(known))}")
            elif not argument.tokens:
                tokens += [(argument, token) for token in _tokens(entry, argument)]
        if wrong:
            raise BadInput("\n".join(wrong))
        for argument, token in tokens:
            argument.append(token)
        _refuse_fractions(arguments)


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _find(key: str, known: dict[str, Argument]) -> Argument | None:
    """Find an option by its key, or a mapping option by a key inside it (`columns.text`)."""
    outer = known.get(_plain(key.rpartition(".")[0]))
    return known.get(_plain(key)) or (outer if outer and is_mapping(outer.hint) else None)


def _tokens(entry: Entry, argument: Argument) -> list[Token]:
    make = partial(Token, keyword=entry.key, source=entry.where)
    if entry.value is None:
        return [make(implicit_value=None)]
    if isinstance(entry.value, tuple):
        return [make(value=each, index=i) for i, each in enumerate(entry.value)] or [make(implicit_value=())]
    return [make(value=entry.value, keys=(entry.key.rpartition(".")[2],) if is_mapping(argument.hint) else ())]


def _complaint(entry: Entry, argument: Argument | None, known: list[str]) -> str:
    if argument is not None:
        seen = "null" if entry.value is None else "a list" if isinstance(entry.value, tuple) else f'"{entry.value}"'
        return f"{entry.key}: expected {type_name(argument.hint)}, got {seen}."
    if within := [key for key in known if key.startswith(f"{_plain(entry.key)}.")]:
        inner = within[0].partition(".")[2]
        return f'{entry.key} has options of its own, as in "{entry.key}: {{{inner}: ...}}", got "{entry.value}".'
    near = difflib.get_close_matches(_plain(entry.key), known, 1)
    return f'there is no option "{entry.key}"; ' + (
        f'the nearest is "{near[0]}".' if near else f"there are: {', '.join(known)}."
    )


def _refuse_fractions(arguments: ArgumentCollection) -> None:
    # cyclopts rounds: it would read a rank of 8.7 as 9.
    for argument in arguments:
        kinds = scalars(argument.hint)
        if int in kinds and not {float, str} & kinds:
            for token in argument.tokens:
                if "." in token.value:
                    raise CoercionError(argument=argument, token=token, target_type=int)
