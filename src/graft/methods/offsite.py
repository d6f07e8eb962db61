"""Offsite-tuning (Xiao, Lin, Han 2023, arXiv 2302.04870): the first and last k blocks are tuned, and the middle is not.

    h = top_k(middle(bottom_k(x)))        in training:  top_k(emulator(bottom_k(x)))

Whoever owns the model gives away its ends whole, and of the middle every other block or so, perhaps distilled
(`graft emulate`). Whoever has the data tunes the ends on that, with this method; loaded onto the full model, which
graft knows by its fingerprint, the tuned ends replace its own. The trained tensors are 2k blocks of the base, in place,
so that such an adapter is alone on its model. On a model that is no emulator it tunes the ends of that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from torch import nn

from graft.anatomy.emulated import emulated
from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.method import Method, positive

if TYPE_CHECKING:
    from graft.anatomy import Anatomy


@dataclass(frozen=True)
class Offsite(Method):
    """Fine-tune the first and the last blocks (of the decoder, where there are two stacks), for the full model."""

    ends: Annotated[int, "how many blocks at the bottom, and as many at the top"] = 2

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-4
    in_place: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "ends")

    def choose(self, anatomy: "Anatomy", model: nn.Module) -> Iterable[str]:
        tower = anatomy.stacks[-1]
        if tower.repeats > 1:
            raise Refused(
                f"Offsite: one module of the {tower.name} runs as several blocks, so that it has no ends. Use another "
                "method."
            )
        if 2 * self.ends > len(tower.layers):
            raise BadInput(
                f"Offsite: ends={self.ends} are {2 * self.ends} blocks, and the {tower.name} has {len(tower.layers)}. "
                f"Choose at most {len(tower.layers) // 2}."
            )
        full = emulated(model.config)
        if full is not None and self.ends > full.ends:
            raise BadInput(
                f"Offsite: ends={self.ends}, and this emulator has {full.ends} whole blocks at each end: what is "
                f"between them is not in the full model. Choose at most {full.ends}."
            )
        chosen = (*tower.layers[: self.ends], *tower.layers[-self.ends :])
        return [name for name, _ in model.named_parameters() if name.startswith(tuple(f"{path}." for path in chosen))]

    def sizes(self) -> tuple[str, ...]:
        return ("ends",)

    def count(self, sites: Sequence[Site]) -> int:
        return 0
