"""What a contestant that is not fine-tuning is: something that sees the train rows and then answers rows.

An entrant is a frozen dataclass of settings, one to a file in `entrants/`, and is found by its file. It enters the same
boards as the methods and answers the same items with records of the same form.

    entrant = Tfidf(C=10.0)
    if (why := entrant.refuses(arena)) is None:
        answerer = entrant.fit(arena, rows, seed=0)
        records = answerer.answer(arena.test)

Whatever answers rows can enter: retrieval keeps an index where `TF-IDF` keeps coefficients, steering keeps directions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, cast

from torch import nn

from graft.data.rows import Row
from graft.data.task import Record, Task
from graft.method import allowed, check


class Arena(Protocol):
    """Where an entrant enters: one base and one data set, as every contestant there gets them.

    `model`: the base for this task, frozen, in evaluation mode, on its device. `config`: the model's. `fresh`: names of
    the tensors of the base that start at random, as a new classification head does. `train`: all train rows there are;
    the rows that `fit` gets are some of them.
    """

    @property
    def task(self) -> Task:
        """The task, fitted to the train rows."""

    @property
    def model(self) -> nn.Module:
        """The base."""

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""

    @property
    def config(self) -> Any:
        """The base's configuration."""

    @property
    def fresh(self) -> tuple[str, ...]:
        """Tensors of the base that start at random."""

    @property
    def train(self) -> Sequence[Row]:
        """All train rows."""

    @property
    def test(self) -> Sequence[Row]:
        """Rows to be scored on, which nothing is fitted to."""

    def held_back(self, size: int) -> Sequence[Row]:
        """The rows to choose by for who trains on `size` rows."""


class Answerer(ABC):
    """What `fit` gives. `trainable`: numbers that were fitted; `stored`: bytes to keep for answering, the base left
    out; `notes`: what a user should know, complete once everything is answered."""

    def __init__(self, trainable: int = 0, stored: int = 0, notes: Sequence[str] = ()) -> None:
        self.trainable, self.stored, self.notes = trainable, stored, list(notes)

    @abstractmethod
    def answer(self, rows: Sequence[Row]) -> list[Record]:
        """A record for each row, in order: `item` (its index in `rows`), `output` where the task writes or chooses, and
        as the task has it `probabilities`, `loss`, `tokens`, `bytes`. The caller adds input and reference."""


@dataclass(frozen=True)
class Entrant(ABC):
    """Base of all entrants: a frozen dataclass of settings. Subclasses are final and live one to a file in `entrants/`.

    `search`: the values to try for each setting, its default first. `seeded`: whether a seed changes anything; one that
    is not runs once.
    """

    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    seeded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse values that a field's type does not allow; an entrant with rules of its own calls this first."""
        for f in fields(self):
            allowed(cast(Any, self), f.name, f.type, f.default)

    @classmethod
    def slug(cls) -> str:
        """The name of the entrant's file, which is its name in a comparison."""
        return cls.__module__.rpartition(".")[2]

    @property
    def name(self) -> str:
        """The name of the entrant's file."""
        return self.slug()

    @abstractmethod
    def refuses(self, arena: Arena) -> str | None:
        """Why it cannot enter here, in one sentence; None when it can."""

    @abstractmethod
    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        """Learn from `rows`. The same rows, seed and settings give the same answers. Raises BadInput for rows that do
        not serve; only called where `refuses` gives None."""

    def check(self, condition: bool, name: str, rule: str, remedy: str) -> None:
        """Refuse an impossible setting. Raises BadInput."""
        check(condition, cast(Any, self), name, rule, remedy)

    def at_least(self, least: int, *names: str) -> None:
        """Refuse settings that are whole numbers below `least`."""
        for name in names:
            self.check(getattr(self, name) >= least, name, f"must be at least {least}", f"Try {max(least, 1)}.")
