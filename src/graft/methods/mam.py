"""Mix-and-match (He et al. 2021, arXiv 2110.04366; "MHM" elsewhere): prefix tuning and a parallel adapter.

    MAM = PrefixTuning(n small, reparameterized) + ParallelAdapter(r, s = 4)

The authors' code allocates more than it uses (prefixes of stacks the model lacks, a second adapter per layer); counts
here are of what is used. The prefix keeps the start from being the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from graft.anatomy.site import Site
from graft.method import Method, positive
from graft.methods.parallel_adapter import ParallelAdapter
from graft.methods.prefix_tuning import PrefixTuning


@dataclass(frozen=True)
class MAM(Method):
    """Prefix tuning in attention and a scaled parallel adapter in the feed-forward network."""

    tokens: Annotated[int, "number of virtual keys"] = 30
    reparameterize: Annotated[bool, "compute the prefixes with a small network while training"] = True
    hidden: Annotated[int, "width of that network"] = 800
    bottleneck: Annotated[int, "width of the parallel adapter"] = 64
    scale: Annotated[float, "factor on the parallel adapter's output"] = 4.0

    family: ClassVar[str] = "hybrid"
    learning_rate: ClassVar[float] = 1e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens", "hidden", "bottleneck")

    def methods(self) -> tuple[Method, ...]:
        return (
            PrefixTuning(tokens=self.tokens, reparameterize=self.reparameterize, hidden=self.hidden),
            ParallelAdapter(bottleneck=self.bottleneck, scale=self.scale),
        )

    def serving(self) -> Method:
        return replace(self, reparameterize=False)

    def sizes(self) -> tuple[str, ...]:
        return ("tokens", "hidden", "bottleneck") if self.reparameterize else ("tokens", "bottleneck")

    def count(self, sites: Sequence[Site]) -> int:
        prefix, parallel = self.methods()
        of = {role: [site for site in sites if site.role == role] for role in ("attention", "ffn")}
        return prefix.count(of["attention"]) + parallel.count(of["ffn"])
