"""The design of a comparison: who, on what, how often and how long; everything that decides a result."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from graft.loading import Precision
from graft.tournament.contestant import Contestant
from graft.training.options import TrainingOptions

FEWEST = 50  # validation rows that a board has at least, where the data has them
DECISIVE = ("least_steps", "length", "metric", "dtype", "device", "general_text", "ablate", "validation_rows")
OWN = ("lr", "seed", "report_to")  # training options that each trial sets itself, or that decide nothing


@dataclass(frozen=True)
class Rows:
    """One data set: where its rows are and how they are read. See `graft.data.load`."""

    source: str
    columns: str | None = None
    template: str | None = None


@dataclass(frozen=True)
class Place:
    """Where trials take place: the base, the data (both by their place in the design) and the number of train rows."""

    model: int
    data: int
    size: int


@dataclass(frozen=True)
class Design:
    """A whole comparison.

    `sizes`: train rows, 0 for all. `trials`: candidates that each contestant may try. `least_steps`: optimizer steps at
    least, where few rows make few of them in all epochs. `length`: tokens of a row at most. `ablate`: also score every
    adapter without each span of layers. `transfer`: also score it on the test rows of the other data sets. `keep`: the
    adapters of the first seed stay on disk. `notes`: what else a reader should know of how it was compared.
    """

    models: tuple[str, ...]
    data: tuple[Rows, ...]
    contestants: tuple[Contestant, ...]
    training: TrainingOptions = field(default_factory=TrainingOptions)
    task: str | None = None
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    allow: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    trials: int = 2
    least_steps: int = 100
    validation_rows: int = 500
    test_rows: int = 0
    length: int | None = None
    metric: str | None = None
    general_text: str | None = None
    ablate: bool = False
    transfer: bool = False
    keep: bool = True
    dtype: Precision = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    notes: tuple[str, ...] = ()

    def places(self) -> list[Place]:
        """All places, those of one base and data set side by side, so that it is loaded once."""
        return [
            Place(model, data, size)
            for model in range(len(self.models))
            for data in range(len(self.data))
            for size in self.sizes
        ]

    def validation(self, rows: int) -> int:
        """Validation rows beside so many train rows at most: who has few rows to train on has few to choose by."""
        most = max(rows, FEWEST)
        return min(self.validation_rows, most) if self.validation_rows else most


@dataclass(frozen=True)
class Trial:
    """One contestant with one candidate setting on one board, with one seed, for a share of the full length.

    `final`: with the settings that won, scored on the test rows. `facts`: what the board is made of.
    """

    place: Place
    contestant: Contestant
    candidate: tuple[tuple[str, Any], ...]
    seed: int
    share: float
    final: bool
    facts: str = ""
    options: str = ""

    @property
    def id(self) -> str:
        """Twelve letters from everything that decides the result; a name decides nothing."""
        identity = [
            self.facts, self.place.size, self.options, self.contestant.as_json(), self.candidate, self.seed, self.share,
            self.final,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:12]


def decisive(design: Design) -> str:
    """The options that decide the result of a trial, beside its board, contestant, candidate and seed."""
    training = {name: value for name, value in asdict(design.training).items() if name not in OWN}
    others = [rows.source for rows in design.data] if design.transfer else []
    facts = {name: getattr(design, name) for name in DECISIVE} | {"training": training, "transfer": others}
    return json.dumps(facts, sort_keys=True, default=str)


def training_of(design: Design, trial: Trial, rate: float | None, rows: int) -> TrainingOptions:
    """The options of training of one trial on so many rows: a share of the full length."""
    full = replace(design.training, lr=rate, seed=trial.seed)
    if full.seconds is not None:
        return replace(full, seconds=full.seconds * trial.share)
    steps = full.steps or max(design.least_steps, math.ceil(full.epochs * math.ceil(rows / full.batch)))
    return replace(full, steps=max(1, round(steps * trial.share)))
