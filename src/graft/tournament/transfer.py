"""Transfer: an adapter trained on one data set, scored on the test rows of the others."""

from collections.abc import Sequence

from graft import metrics
from graft.attach import use
from graft.scoring import score
from graft.tournament.arena import Arena


def scores(arena: Arena, name: str, others: Sequence[Arena], metric: str) -> dict[str, float | None]:
    """The score on the test rows of each other arena, by the source of its rows.

    None where the rows are for another task, or have labels that the adapter does not know.
    """
    chosen = metrics.get(metric)
    found: dict[str, float | None] = {}
    for other in others:
        if other.task.kind != arena.task.kind or set(other.task.known()) - set(arena.task.known()):
            found[other.given.source] = None
            continue
        with use(arena.model, name):
            found[other.given.source] = chosen.score(score(arena.model, arena.tokenizer, arena.task, other.test)).value
    return found
