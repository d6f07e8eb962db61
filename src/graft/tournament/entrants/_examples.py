"""Examples in a prompt: which rows are shown, what stands between them, and how many of them fit."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from graft.data.rows import Row
from graft.data.task import Task
from graft.tournament.entrant import Arena

# What parts the examples: the first that no answer has within it.
BETWEEN = ("\n\n", "\n\n\n", "\n\n###\n\n")
ENDLESS = 10**6  # tokens


def drawn(rows: Sequence[Row], k: int, seed: int, label: Callable[[Row], str] | None = None) -> list[Row]:
    """`k` rows chosen by the seed, all where there are fewer; with `label`, as many of each label as can be."""
    draw = random.Random(seed)
    order = draw.sample(rows, len(rows))
    if label is None:
        return order[:k]
    groups: dict[str, list[Row]] = {}
    for row in order:
        groups.setdefault(label(row), []).append(row)
    turns = [group[turn] for turn in range(max(map(len, groups.values()))) for group in groups.values()
             if turn < len(group)]  # fmt: skip
    return draw.sample(turns[:k], len(turns[:k]))


def orders(examples: Sequence[Row], count: int, seed: int) -> list[list[Row]]:
    """So many orders of the same examples, the first as they are."""
    draw = random.Random(seed)
    return [list(examples), *(draw.sample(examples, len(examples)) for _ in range(count - 1))]


def separator(answers: Sequence[str]) -> str:
    """What to put between examples so that an answer can be told from what follows it."""
    return next((mark for mark in BETWEEN if not any(mark in answer for answer in answers)), BETWEEN[-1])


class Room:
    """Finds how many of the last examples fit before a row, and remembers how often not all did."""

    def __init__(self, arena: Arena, examples: int) -> None:
        self.tokenizer, self.most = arena.tokenizer, examples
        self.asked, self.shown, self.short = 0, 0, 0

    def fitting(self, made: Callable[[int], tuple[Task, Row]]) -> int:
        """The largest number of examples with which nothing of the prompt is cut; `made` gives task and row for one."""
        kept = next((count for count in range(self.most, 0, -1) if self._whole(*made(count))), 0)
        self.asked, self.shown, self.short = self.asked + 1, self.shown + kept, self.short + (kept < self.most)
        return kept

    @property
    def notes(self) -> list[str]:
        """What to say when examples had to be left out."""
        if not self.short:
            return []
        mean = self.shown / self.asked
        return [f"of {self.most} examples {mean:.1f} fit into a prompt on average; {self.short / self.asked:.0%} of "
                "the prompts had fewer, the first ones left out"]  # fmt: skip

    def _whole(self, task: Task, row: Row) -> bool:
        limited, whole = task.encode(row, self.tokenizer), replace(task, max_length=ENDLESS).encode(row, self.tokenizer)
        return len(limited["input_ids"]) == len(whole["input_ids"])
