"""The answer that train rows have most often, whatever is asked: the least that any contestant must beat."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from graft.data.rows import Row
from graft.data.task import Record, Task
from graft.data.tasks.classification import Classification
from graft.data.tasks.generation import Generation
from graft.data.tasks.multiple_choice import MultipleChoice
from graft.data.tasks.regression import Regression
from graft.data.tasks.tagging import Tagging
from graft.tournament.entrant import Answerer, Arena, Entrant


@dataclass(frozen=True)
class Majority(Entrant):
    """Always the most frequent label; the mean of numbers, the most frequent tag, choice or completion."""

    seeded: ClassVar[bool] = False

    def refuses(self, arena: Arena) -> str | None:
        if isinstance(arena.task, Classification | Regression | Tagging | MultipleChoice):
            return None
        if not isinstance(arena.task, Generation):
            return f"majority: answers to {arena.task.kind} do not repeat, so none is the most frequent."
        if not _completions(arena.train).most_common(1)[0][1] > 1:
            return "majority: every completion occurs once, so none is the most frequent."
        return None

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        return Constant(arena.task, rows)


class Constant(Answerer):
    """One answer for every row, and how often train rows have each."""

    def __init__(self, task: Task, rows: Sequence[Row]) -> None:
        super().__init__(trainable=1, stored=8)
        self.task = task
        self.counts: Counter[Any] = Counter()
        if isinstance(task, Regression):
            self.mean = math.fsum(float(row["label"]) for row in rows) / len(rows)
        elif isinstance(task, Tagging):
            self.counts = Counter(tag for row in rows for tag in row["tags"])
        elif isinstance(task, MultipleChoice):
            self.counts = Counter(int(row["answer"]) for row in rows)
        elif isinstance(task, Generation):
            self.counts = _completions(rows)
        else:
            self.counts = Counter(row["label"] for row in rows)
            self.trainable = len(self.counts)

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        return [{"item": item, **self._given(row)} for item, row in enumerate(rows)]

    def _given(self, row: Row) -> Record:
        if isinstance(self.task, Regression):
            return {"output": self.mean}
        if isinstance(self.task, MultipleChoice):
            # Rows with few choices may lack the most frequent one.
            return self._likeliest(range(len(row["choices"])))
        if isinstance(self.task, Classification):
            return self._likeliest(self.task.labels)
        most = self.counts.most_common(1)[0][0]
        return {"output": [most] * len(row["tokens"]) if isinstance(self.task, Tagging) else most}

    def _likeliest(self, answers: Sequence[Any]) -> Record:
        seen = [self.counts[answer] for answer in answers]
        total = sum(seen)
        chances = [count / total if total else 1 / len(answers) for count in seen]
        return {"output": answers[chances.index(max(chances))], "probabilities": chances}


def _completions(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row["completion"] for row in rows)
