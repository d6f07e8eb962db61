"""What is measured: every trial is one data set, one method and one seed."""

from collections.abc import Iterator
from dataclasses import dataclass

from graft.method import Method
from graft.methods.bitfit import BitFit
from graft.methods.ia3 import IA3
from graft.methods.lora import LoRA
from graft.methods.pfeiffer import Pfeiffer
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.top_layers import TopLayers

SEEDS = (0, 1, 2)
CLASSIFICATION = ("trec", "sst2")
LANGUAGE = "tiny_shakespeare"

METHODS: dict[str, Method] = {
    "full": TopLayers(k="all"),
    "lora": LoRA(rank=8, sites="all-linear"),
    "head": TopLayers(k=0),
    "pfeiffer": Pfeiffer(),
    "bitfit": BitFit(),
    "ia3": IA3(),
    "prefix": PrefixTuning(),
    "prompt": PromptTuning(),
}
# Where the search found a better learning rate for this model than the method's default, which suits larger ones too.
RATES = {("trec", "full"): 2e-4, ("sst2", "full"): 2e-4, (LANGUAGE, "lora"): 2e-3}

TITLES = {
    "full": "full fine-tuning", "lora": "LoRA r=8, all linear layers", "head": "head only", "pfeiffer": "Pfeiffer",
    "bitfit": "BitFit", "ia3": "IA3", "prefix": "prefix tuning", "prompt": "prompt tuning",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long and in what portions one data set is trained on: the same for every method."""

    epochs: float
    batch: int
    length: int


PLANS = {"trec": Plan(3, 32, 64), "sst2": Plan(2, 32, 64), LANGUAGE: Plan(2, 16, 256)}


@dataclass(frozen=True)
class Trial:
    """One row of the results."""

    data: str
    method: str
    seed: int

    @property
    def made(self) -> Method:
        """The method with its hyperparameters."""
        return METHODS[self.method]

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return RATES.get((self.data, self.method), self.made.learning_rate)

    @property
    def plan(self) -> Plan:
        """How it is trained."""
        return PLANS[self.data]

    def __str__(self) -> str:
        return f"{self.data}/{self.method}/{self.seed}"


def trials() -> Iterator[Trial]:
    """All of them, those that the acceptance hangs on first."""
    first, rest = list(METHODS)[:3], list(METHODS)[3:]
    yield from (Trial(data, method, 0) for method in first for data in CLASSIFICATION)
    yield from (Trial(LANGUAGE, "lora", seed) for seed in SEEDS)
    yield from (Trial(data, method, seed) for seed in SEEDS[1:] for method in first for data in CLASSIFICATION)
    yield from (Trial(data, method, seed) for seed in SEEDS for method in rest for data in CLASSIFICATION)
