"""Embedding prompt (Feng & Narayanan 2023, arXiv 2306.05350), deep visual prompt tuning (Jia et al. 2022, 2203.12119).

    [_, X_l] = Block_l([P_l; X_{l−1}]),   P_l ∈ R^{n×d}

Every block reads tokens of its own in front of the row, and what it gives at them is dropped. In an encoder-decoder
both stacks have them. They come behind the embedding: rotary and relative positions count them, learned positions of
the real tokens stay where they are. Starts Xavier-uniform, and never as the base. Departure: the papers' stacks, of
sound and of images, read no tokens and are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import Refused
from graft.method import Method, Part, positive

if TYPE_CHECKING:
    from graft.attach.call import Call


class BlockPrompt(Part):
    """n tokens in front of what enters one block."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.P = nn.Parameter(nn.init.xavier_uniform_(torch.empty(tokens, width)))
        self.length = tokens

    def tokens(self, call: "Call") -> Tensor:
        return self.P


@dataclass(frozen=True)
class EmbeddingPrompt(Method):
    """Trained tokens in front of what enters every block, dropped behind it."""

    tokens: Annotated[int, "number of virtual tokens of each block"] = 5
    sites: Annotated[str, "which blocks"] = "layer"

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 3e-2
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens")

    def build(self, site: Site) -> Part:
        if site.role != "layer":
            raise Refused(f"EmbeddingPrompt: {site.name} is no block. Choose sites='layer', or prompt_tuning.")
        return BlockPrompt(self.tokens, site.inputs)

    def sizes(self) -> tuple[str, ...]:
        return ("tokens",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.tokens * site.inputs for site in sites)
