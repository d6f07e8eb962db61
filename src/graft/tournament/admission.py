"""Who can enter where: every method is put on every base of a comparison, without weights, before anything is begun.

What cannot be on one base may well be on another (a method for encoders, where there are decoders too), and the rows of
one data set may name the tasks that a method learns where those of another do not. So who is refused on some boards is
a row of those with the reason, as an entrant that cannot enter is; who is refused on all of them is a mistake.
"""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from torch import nn

from graft.attach import detach
from graft.errors import BadInput, GraftError
from graft.method import Method
from graft.tournament.arena import Arena
from graft.tournament.design import Design
from graft.tournament.playing import Board
from graft.tournament.running import NAME, entered

LONGEST = 300  # characters of a reason: some show a whole layer

Refusals = Mapping[str, Mapping[str, str]]


def refusals(design: Design, boards: Sequence[Board], asked: bool = True) -> Refusals:
    """Why which contestants cannot enter: by their names, by the names of boards, only of those who cannot.

    asked: the user named the contestants. Raises BadInput then, with a line for each, for those who can enter nowhere.
    """
    bare: dict[Any, nn.Module] = {}
    arenas = {id(board.arena): board.arena for board in boards}
    told = {key: _refused(design, arena, bare) for key, arena in arenas.items()}
    found = {
        each.name: {board.id: why for board in boards if (why := told[id(board.arena)].get(each.name))}
        for each in design.contestants
    }
    nowhere = [f"{name}: {next(iter(why.values()))}" for name, why in found.items() if len(why) == len(boards)]
    if asked and nowhere:
        raise BadInput("\n".join(nowhere))
    return {name: why for name, why in found.items() if why}


def _refused(design: Design, arena: Arena, bare: dict[Any, nn.Module]) -> dict[str, str]:
    """Why which methods cannot be in an arena. `bare`: the bases without weights that were made, by what they are."""
    methods = {each.name: each.way for each in design.contestants if isinstance(each.way, Method)}
    found: dict[str, str] = {}
    try:
        if arena.weights not in bare:
            bare[arena.weights] = arena.bare()
    except GraftError as error:
        return dict.fromkeys(methods, _said(error))
    model = bare[arena.weights]
    for name, method in methods.items():
        try:
            entered(design, arena, model, method)
            detach(model, NAME)
        except GraftError as error:
            found[name] = _said(error)
    return found


def _said(error: GraftError) -> str:
    return shorten(str(error), LONGEST, placeholder=" …")
