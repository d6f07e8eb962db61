"""Examples in the prompt (Brown et al. 2020, arXiv 2005.14165), in several orders (Lu et al. 2022, arXiv 2104.08786).

    prompt 1 answer 1 ⏎⏎ prompt 2 answer 2 ⏎⏎ … ⏎⏎ prompt

Labels: the probabilities under several orders of the same examples are averaged, with `calibrate` each divided by
those of an empty text under the same examples (Zhao et al. 2021, arXiv 2102.09690). Written answers: one order for a
seed; what the base writes after an answer, from where the next example would begin, is cut off. Where not all examples
fit, the first are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from graft.data.rows import Row
from graft.data.task import Record
from graft.data.tasks.generation import Generation
from graft.data.tasks.verbalized import Verbalized
from graft.data.templates import DEFAULT, render
from graft.scoring import score
from graft.tournament.entrant import Answerer, Arena, Entrant
from graft.tournament.entrants import _examples
from graft.tournament.entrants._examples import Room


@dataclass(frozen=True)
class FewShot(Entrant):
    """The base as it is, with some train rows as examples in the prompt."""

    k: Annotated[int, "examples in the prompt"] = 4
    orders: Annotated[int, "orders of the examples whose probabilities are averaged (labels)"] = 2
    balanced: Annotated[bool, "as many examples of each label as can be, else as drawn (labels)"] = True
    calibrate: Annotated[bool, "divide by the probabilities for a text that says nothing (labels)"] = False

    search: ClassVar = {"k": (4, 8, 2, 16)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "k", "orders")

    def refuses(self, arena: Arena) -> str | None:
        if arena.fresh:
            return "few_shot: the base's head is untrained, so examples mean nothing to it."
        if not isinstance(arena.task, Verbalized | Generation):
            return (
                f"few_shot writes its answer, which {arena.task.kind} does not ask for; use verbalized or generation."
            )
        return None

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        if isinstance(arena.task, Verbalized):
            task = replace(arena.task, calibrate=self.calibrate or arena.task.calibrate)
            examples = _examples.drawn(rows, self.k, seed, (lambda row: row["label"]) if self.balanced else None)
            return OfLabels(arena, task, _examples.orders(examples, self.orders, seed))
        assert isinstance(arena.task, Generation)
        return Written(arena, arena.task, _examples.drawn(rows, self.k, seed), rows)


class OfLabels(Answerer):
    """Label words scored after examples, averaged over their orders."""

    def __init__(self, arena: Arena, task: Verbalized, orders: Sequence[Sequence[Row]]) -> None:
        self.arena, self.task = arena, task
        self.between = _examples.BETWEEN[0]
        self.orders = [[task.shown(row) + self.between for row in order] for order in orders]
        self.room = Room(arena, len(self.orders[0]))
        super().__init__(stored=sum(len(text.encode("utf-8", "surrogatepass")) for text in self.orders[0]))

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        chances = np.mean([self._chances(rows, order) for order in self.orders], axis=0)
        self.notes = self.room.notes
        labels, records = self.task.labels, []
        for item, (row, found) in enumerate(zip(rows, chances, strict=True)):
            record = {"item": item, "output": labels[int(found.argmax())], "probabilities": found.tolist()}
            if row.get("label") in labels:
                record["loss"] = -math.log(max(found[labels.index(row["label"])], 1e-300))
            records.append(record)
        return records

    def _chances(self, rows: Sequence[Row], order: Sequence[str]) -> np.ndarray:
        """(rows, labels) probabilities under one order; rows with the same number of examples go together."""

        def task(count: int) -> Verbalized:
            return replace(self.task, preamble=self.task.preamble + "".join(order[len(order) - count :]))

        groups: dict[int, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(self.room.fitting(lambda count, row=row: (task(count), row)), []).append(at)  # type: ignore[misc]
        found = np.zeros((len(rows), len(self.task.labels)))
        for count, places in groups.items():
            records = score(self.arena.model, self.arena.tokenizer, task(count), [rows[at] for at in places])
            found[places] = [record["probabilities"] for record in records]
        return found


class Written(Answerer):
    """Answers written after examples."""

    def __init__(self, arena: Arena, task: Generation, examples: Sequence[Row], rows: Sequence[Row]) -> None:
        self.arena, self.task = arena, task
        self.between = _examples.separator([row["completion"] for row in rows])
        self.examples = [task.prompt(row) + row["completion"] + self.between for row in examples]
        self.room = Room(arena, len(examples))
        super().__init__(stored=sum(len(text.encode("utf-8", "surrogatepass")) for text in self.examples))

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        # The examples are part of the row: the task then only writes what it is given.
        plain = replace(self.task, template=DEFAULT)

        def asked(row: Row, count: int) -> Row:
            shown = self.examples[len(self.examples) - count :]
            return row.having(prompt="".join(shown) + render(self.task.template, row))

        counts = [self.room.fitting(lambda count, row=row: (plain, asked(row, count))) for row in rows]  # type: ignore[misc]
        made = [asked(row, count) for row, count in zip(rows, counts, strict=True)]
        records = score(self.arena.model, self.arena.tokenizer, plain, made)
        self.notes = self.room.notes
        return [
            {**{name: value for name, value in record.items() if name not in ("input", "reference")},
             "output": record["output"].partition(self.between)[0].rstrip()}
            for record in records
        ]  # fmt: skip
