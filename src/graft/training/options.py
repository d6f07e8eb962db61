"""How to train: everything `fit` can be told, with defaults that suit small sets of rows."""

from dataclasses import dataclass
from typing import Literal, get_args

from graft.errors import BadInput
from graft.limits import SEEDS, finite

Schedule = Literal["linear", "cosine", "constant"]
Optimizers = Literal["adamw", "lora+", "adamw8bit", "paged_adamw8bit", "mezo"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """One run of training. The length is `epochs`, or `steps` where given, or `seconds` of training where given.

    batch: rows in one optimizer step. accumulate: forward passes a step is divided into; "auto" takes as few as memory
    allows and doubles them when it runs out. lr: peak learning rate; None is each method's own. warmup: share of the
    run in which the rate rises. weight_decay: of matrices, and of their entries where a vector holds some,
    not of other vectors. clip: largest gradient norm; mezo has no gradient.
    optimizer: see `graft.training.optimization`. perturbation: MeZO's ε; None is the paper's for such a method.
    objective: what MeZO lowers, "loss" or a metric of the task, whose opposite is taken where higher is better.
    base_dropout: whether the base keeps its own dropout in training, in the layers that gradients go through; frozen
    layers below these never have any. autocast: arithmetic in bfloat16 over fp32 weights. checks: how often the
    validation loss is measured (and a checkpoint written). patience: checks without a better loss after which training
    stops; 0 never stops.
    """

    epochs: float = 3.0
    steps: int | None = None
    seconds: float | None = None
    batch: int = 32
    accumulate: int | Literal["auto"] = "auto"
    lr: float | None = None
    schedule: Schedule = "linear"
    warmup: float = 0.06
    weight_decay: float = 0.0
    clip: float = 1.0
    optimizer: Optimizers = "adamw"
    perturbation: float | None = None
    objective: str = "loss"
    base_dropout: bool = True
    checkpointing: bool = False
    autocast: bool = False
    seed: int = 0
    checks: int = 10
    patience: int = 0
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = [name for name in (*_ABOVE, *_FROM, "warmup") if not finite(getattr(self, name))]
        wrong = [f"{name} must be a finite number, got {getattr(self, name)}" for name in numbers]
        wrong += [f"{name} must be above 0, got {getattr(self, name)}" for name in _ABOVE if _at_most_zero(self, name)]
        if finite(self.perturbation) and (self.perturbation or 0) > FARTHEST:
            wrong.append(f"perturbation must be at most {FARTHEST:,}, got {self.perturbation}")
        wrong += [
            f"{name} must not be negative, got {getattr(self, name)}" for name in _FROM if getattr(self, name) < 0
        ]
        if self.seed >= SEEDS:
            wrong.append(f"seed must be below 2^32, got {self.seed}")
        if not 0 <= self.warmup < 1 and finite(self.warmup):
            wrong.append(f"warmup is a share of the run, at least 0 and below 1, got {self.warmup}")
        if isinstance(self.accumulate, int) and self.accumulate > self.batch:
            wrong.append(f"accumulate {self.accumulate} divides a step of {self.batch} rows into more parts than rows")
        if self.optimizer not in get_args(Optimizers):
            wrong.append(f"there is no optimizer {self.optimizer!r}, only {', '.join(get_args(Optimizers))}")
        if self.optimizer != "mezo" and (self.perturbation is not None or self.objective != "loss"):
            wrong.append(f"perturbation and objective are for the optimizer mezo, and it is {self.optimizer}")
        if self.steps is not None and self.seconds is not None:
            wrong.append("give steps or a time budget, not both")
        if wrong:
            raise BadInput("; ".join(wrong) + ".")


FARTHEST = 1000  # no number that trains is that large
_ABOVE = ("epochs", "steps", "seconds", "batch", "accumulate", "lr", "clip", "checks", "perturbation")
_FROM = ("weight_decay", "patience", "seed")


def _at_most_zero(options: TrainingOptions, name: str) -> bool:
    value = getattr(options, name)
    return isinstance(value, (int, float)) and value <= 0
