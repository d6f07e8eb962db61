"""LoRA+ (Hayou et al. 2024, arXiv 2402.12354): LoRA whose B learns faster than its A.

    W′ = W + s·B A,   step of A ∝ η,  step of B ∝ ρ·η,   ρ = `ratio` > 1

The same rate for both lets features of wide models move too slowly: B, which starts at 0, needs the larger one. The
parts, and what is stored and served, are those of LoRA; the rate given to a run is η. A task head learns with η too,
where the authors' code gives its biases ρ·η, and a token embedding's pair as all others do, where that has a rate for
it of its own. With another method's parts, such as DoRA's, it is the optimizer `lora+`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from graft.anatomy.site import Site
from graft.method import Method, Part, check, named, positive


@dataclass(frozen=True)
class LoRAPlus(Method):
    """LoRA with a larger learning rate for B than for A. Stored as a LoRA; merges without a trace."""

    ratio: Annotated[float, "ρ, the learning rate of B over that of A"] = 16.0
    rank: Annotated[int, "width of the update"] = 8
    alpha: Annotated[float, "the update is scaled by alpha/rank (alpha/√rank with rslora)"] = 16.0
    dropout: Annotated[float, "dropout on the update's input, in training"] = 0.0
    rslora: Annotated[bool, "rank-stabilized: scale by alpha/√rank"] = False
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.ratio >= 1, self, "ratio", "must be at least 1, which is LoRA", "Try 16.")
        positive(self, "rank")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 16.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")

    def serving(self) -> Method:
        kept = {name: getattr(self, name) for name in ("rank", "alpha", "dropout", "rslora", "sites")}
        return named("lora", {"lora": kept})

    def build(self, site: Site) -> Part:
        return self.serving().build(site)

    def groups(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        slow: list[Any] = []
        fast: list[Any] = []
        for part in parts:
            for name, parameter in part.named_parameters():
                (fast if name == "B" else slow).append(parameter)
        return [{"params": slow}, {"params": fast, "lr": self.ratio * self.learning_rate}]

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return self.serving().count(sites)
