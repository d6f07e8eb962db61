"""LN-tuning (Qi et al. 2022, arXiv 2211.08682; Zhao et al. 2023, arXiv 2312.11420): train the norms and nothing else.

    y = g′ ⊙ (x − μ)/σ + b′   (an RMS norm: g′ ⊙ x/‖x‖ without b′),   g′ and b′ start as g and b

All norms of the stack: those of the blocks, the embedding's and the final one. "norm @ 0-11" leaves the ones outside
the blocks alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from graft.anatomy.site import Site
from graft.errors import Refused
from graft.method import Method, Part, StandIn


@dataclass(frozen=True)
class LNTuning(Method):
    """Train the gains and biases of every norm. Merges without a trace."""

    sites: Annotated[str, "which norms"] = "norm"

    family: ClassVar[str] = "selective"
    learning_rate: ClassVar[float] = 1e-2

    def build(self, site: Site) -> Part:
        if site.weight.dim() != 1:
            raise Refused(f"LNTuning cannot act at {site.name}: it is no norm. Choose norms, as in sites='norm'.")
        return StandIn(site)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(site.outputs * (1 + (site.bias is not None)) for site in sites)
