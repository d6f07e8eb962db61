"""The base untouched, asked as the task asks (Brown et al. 2020, arXiv 2005.14165)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graft.data.rows import Row
from graft.data.task import Record
from graft.scoring import score
from graft.tournament.entrant import Answerer, Arena, Entrant


@dataclass(frozen=True)
class ZeroShot(Entrant):
    """The base as it is, with the task's own prompts. No train row is looked at."""

    seeded: ClassVar[bool] = False

    def refuses(self, arena: Arena) -> str | None:
        if not arena.fresh:
            return None
        head = arena.fresh[0].partition(".")[0]
        return f"zero_shot: the base's {head} is untrained, so it answers at random; majority stands in for it."

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        return Untouched(arena)


class Untouched(Answerer):
    """Answers by the base alone."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self.arena = arena

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        return score(self.arena.model, self.arena.tokenizer, self.arena.task, rows)
