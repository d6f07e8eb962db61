"""The last k blocks, trained as they are; `k="all"` is full fine-tuning, `k=0` trains the task head alone.

Nothing is added: the base's own tensors train in place, so such an adapter is alone on its model, batches cannot mix it
with others, and the originals are kept to put back on detaching. Embeddings stay frozen unless k is "all". Backward
stops at the first block that trains.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from torch import nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method

if TYPE_CHECKING:
    from graft.anatomy import Anatomy

HEAD_ALONE = 6e-2  # a linear map of fixed features bears far higher rates than pretrained tensors, and needs them


@dataclass(frozen=True)
class TopLayers(Method):
    """Fine-tune the last k blocks (of the decoder, where there are two stacks), or everything."""

    k: Annotated[int | Literal["all"], "how many blocks from the top; all: full fine-tuning; 0: the head alone"] = 2
    final_norm: Annotated[bool, "train the norm after the last block too"] = False

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-4
    in_place: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k != "all" and (not isinstance(self.k, int) or self.k < 0):
            raise BadInput(f"TopLayers: k must be 0, a number of blocks, or 'all', got {self.k!r}.")
        if self.k == 0:
            object.__setattr__(self, "learning_rate", HEAD_ALONE)

    def choose(self, anatomy: "Anatomy", model: nn.Module) -> Iterable[str]:
        names = [name for name, _ in model.named_parameters()]
        if self.k == "all":
            return names
        tower = anatomy.stacks[-1]
        if self.k > len(tower.layers):
            raise BadInput(f"TopLayers: k={self.k}, but the {tower.name} has {len(tower.layers)} blocks. Try k='all'.")
        chosen = list(tower.layers[len(tower.layers) - self.k :])
        if self.final_norm:
            chosen += [
                s.path for s in anatomy.sites if s.role == "norm" and s.stack == tower.name and _final(s, tower.layers)
            ]
        return [name for name in names if any(name.startswith(f"{path}.") for path in chosen)]

    def sizes(self) -> tuple[str, ...]:
        return ("k",) if self.k not in ("all", 0) else ()

    def count(self, sites: Sequence[Site]) -> int:
        return 0


def _final(site: Site, layers: Sequence[str]) -> bool:
    """Whether a norm stands outside the blocks and is not the embedding's."""
    return site.layer is None and "embed" not in site.path.lower()
