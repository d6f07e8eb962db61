"""LLaMA-Adapter (Zhang et al. 2023, arXiv 2303.16199): trained prompts that the top attentions read through a gate.

    K_p = P W_k,  V_p = P W_v,   S = [tanh(g) · softmax(Q K_pᵀ/√h); softmax(Q Kᵀ/√h + mask)],   S [V_p; V] W_o

W_k and W_v are the frozen projections, P ∈ R^{n×d} starts N(0, 1) as in the authors' code, and the gate is one number
for each head, g ∈ R^H. Two softmaxes that know nothing of each other, keys without a rotation, and real tokens that
keep their positions: g = 0 starts as the base, and the first step moves the gates alone.

Departures: on a model with fewer layers than `layers` every layer has a prompt; a model that norms its keys does not
norm these. `gate="hf"` is Hugging Face PEFT's gate: one for all heads, without tanh. PEFT's GPT-2 adds what its prompts
give without projecting it; here W_o comes last on every model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Method, Part, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

Gate = Literal["paper", "hf"]


class GatedPrompt(Part):
    """The prompt and the gate of one attention, and the frozen projections that the prompt goes through."""

    def __init__(self, site: Site, k: Site, v: Site, tokens: int, gate: Gate) -> None:
        super().__init__()
        assert site.heads is not None
        self.P = normal(tokens, k.inputs, std=1.0)
        self.g = zeros(site.heads.query if gate == "paper" else 1)
        self.projections, self.key_heads, self.heads, self.gate = (k, v), site.heads.key, site.heads.query, gate

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        keys, values = (self._projected(by) for by in self.projections)
        gate = torch.tanh(self.g) if self.gate == "paper" else self.g.expand(self.heads)
        return keys, values, gate

    def _projected(self, by: Site) -> Tensor:
        bias = None if by.bias is None else by.bias.to(self.P.dtype)
        return F.linear(self.P, by.weight.to(self.P.dtype), bias).unflatten(-1, (self.key_heads, -1))


@dataclass(frozen=True)
class LLaMAAdapter(Method):
    """Trained prompts that the attentions of the top layers read through a gate that begins closed."""

    tokens: Annotated[int, "length of each layer's prompt"] = 10
    layers: Annotated[int, "how many layers, from the top of each stack; all where there are fewer"] = 30
    gate: Annotated[Gate, "paper: tanh, one for each head; hf: one for all heads and no tanh, as in PEFT"] = "paper"
    sites: Annotated[str, "which attentions"] = "self: attention"

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 3e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens", "layers")

    def expression(self) -> str:
        return self.sites.replace("attention", "attention k v")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        return [
            (site, GatedPrompt(site, _beside(site, "k", sites), _beside(site, "v", sites), self.tokens, self.gate))
            for site in self._adapted(sites)
        ]

    def sizes(self) -> tuple[str, ...]:
        return ("tokens",)

    def count(self, sites: Sequence[Site]) -> int:
        gates = {site: site.heads.query if self.gate == "paper" and site.heads else 1 for site in self._adapted(sites)}
        return sum(self.tokens * _beside(site, "k", sites).inputs + gate for site, gate in gates.items())

    def _adapted(self, sites: Sequence[Site]) -> list[Site]:
        """The attentions in the top layers of their stack."""
        chosen = [site for site in sites if site.role == "attention"]
        layers = {site.stack: sorted({s.layer or 0 for s in chosen if s.stack == site.stack}) for site in chosen}
        return [site for site in chosen if (site.layer or 0) in layers[site.stack][-self.layers :]]


def _beside(site: Site, role: str, sites: Sequence[Site]) -> Site:
    where = (role, site.stack, site.layer, site.cross)
    return next(s for s in sites if (s.role, s.stack, s.layer, s.cross) == where)
