"""P-tuning v2 (Liu et al. 2022, arXiv 2110.07602): prompts in every layer, as keys and values, for models of any size.

    K′ = [P_k; K],  V′ = [P_v; V],   P_k, P_v ∈ R^{n × key heads × width}

Prefix tuning without its network, with a classification head where prompts used to need words: `PrefixTuning` has the
network, which the paper finds to help on some tasks. Tokens' positions begin behind the n keys, which carry none.
Starts N(0, 0.02²), where the authors' code draws N(0, 1), and never as the base. Encoder, decoder and cross-attention
each have their own; the paper has encoders and decoders alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Part, normal, positive

if TYPE_CHECKING:
    from graft.attach.call import Call


class DeepPrompt(Part):
    """n keys and n values of one attention."""

    def __init__(self, tokens: int, heads: int, width: int) -> None:
        super().__init__()
        self.keys, self.values = (nn.Parameter(t) for t in normal(2, tokens, heads, width, std=0.02).data)
        self.length = tokens

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        return self.keys, self.values, None


@dataclass(frozen=True)
class PTuningV2(Method):
    """Trained keys and values in front of every layer's own, without a network to compute them."""

    tokens: Annotated[int, "number of virtual keys; the paper uses 4 to 128, more for harder tasks"] = 20
    sites: Annotated[str, "which attentions"] = "attention"

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 6e-2
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens")

    def build(self, site: Site) -> Part:
        heads = site.key_heads()
        return DeepPrompt(self.tokens, heads.key, heads.width)

    def sizes(self) -> tuple[str, ...]:
        return ("tokens",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(2 * self.tokens * site.heads.key * site.heads.width for site in sites if site.heads)
