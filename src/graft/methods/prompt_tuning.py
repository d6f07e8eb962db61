"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): virtual tokens in front of the input's embeddings.

    X′ = [P; E(x)],   P ∈ R^{n×d}

An encoder-decoder gets them in the encoder only. Starts from real words: a sample of the vocabulary's most frequent
5,000, a text, or class words filled up with a sample; or U(−½, ½). Never starts as the base.
`variant="hf"`: outputs at virtual tokens are kept, so that an encoder pools at the first of them, as PEFT does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, positive

if TYPE_CHECKING:
    from graft.attach.call import Call

FREQUENT = 5000
Init = Literal["vocabulary", "text", "classes", "uniform"]


class Prompt(Part):
    """n virtual tokens."""

    def __init__(self, start: Tensor, trims: bool) -> None:
        super().__init__()
        self.P = nn.Parameter(start.detach().clone().float())
        self.length, self.trims = len(start), trims

    def tokens(self, call: "Call") -> Tensor:
        return self.P


@dataclass(frozen=True)
class PromptTuning(Method):
    """Trained virtual tokens in front of every input."""

    tokens: Annotated[int, "number of virtual tokens"] = 20
    init: Annotated[Init, "vocabulary: frequent words; text or classes: the words of `text`; uniform: U(-0.5, 0.5)"] = (
        "vocabulary"
    )
    text: Annotated[str, "the words to begin from, with init text or classes"] = ""
    variant: Annotated[Literal["paper", "hf"], "hf: an encoder pools at the first virtual token, as PEFT does"] = (
        "paper"
    )

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 1e-1
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens")
        if self.init in ("text", "classes") and not self.text.strip():
            raise BadInput(f"PromptTuning: init={self.init!r} begins from words. Give them as text='...'.")

    def expression(self) -> str:
        return "embed"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        return [(site, self.build(site)) for site in sites[:1]]

    def build(self, site: Site) -> Part:
        return Prompt(self._start(site), trims=self.variant == "paper")

    def _start(self, site: Site) -> Tensor:
        embedding = site.module
        assert embedding is not None
        if self.init == "uniform":
            return torch.rand(self.tokens, site.outputs) - 0.5
        sample = torch.randperm(min(FREQUENT, site.inputs))
        sample = sample.repeat(-(-self.tokens // len(sample)))
        if self.init == "vocabulary":
            return embedding(sample[: self.tokens])
        words = site.token_ids(self.text)
        if self.init == "text":
            words = words * -(-self.tokens // len(words))
        return embedding(torch.cat((torch.tensor(words), sample))[: self.tokens])

    def serving(self) -> Method:
        # Whoever loads the tokens needs neither the words they began from nor a tokenizer.
        return replace(self, init="uniform", text="")

    def sizes(self) -> tuple[str, ...]:
        return ("tokens",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.tokens * site.outputs for site in sites[:1])
