"""Res-Tuning (Jiang et al. 2023, arXiv 2310.19859): adapters, prefixes and prompts as residual tuners beside the base.

    y = OP(x) + Tuner(x),   OP: attention, feed-forward network or block

    adapter         Tuner(x) = GELU(x W_d + b_d) W_u + b_u
    prefix, prompt  Tuner(x) = λ (Attn(Q, P_k, P_v) − Attn(Q, K, V)),   λ = Σ e^{q P_kᵀ} / (Σ e^{q P_kᵀ} + Σ e^{q Kᵀ})

A prefix trains P_k and P_v, a prompt P ∈ R^{n×d} of which the frozen projections make them; λ, which no parameter
sets, is what one softmax over both gives, so both are computed as keys and values in front of the attention's own.
Weights start Xavier-uniform, biases N(0, 10⁻¹²) and W_u = 0, b_u = 0: adapters start as the base, keys cannot.
Cross-attention is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

BIAS = 1e-6
KEYS_FASTER = 10  # keys learn at this multiple of the adapters' rate
KeysValues = tuple[Tensor, Tensor, Tensor | None]


class Adapter(Part):
    """A bottleneck beside one operation."""

    def __init__(self, site: Site, bottleneck: int) -> None:
        super().__init__()
        self.down, self.down_bias = _xavier(bottleneck, site.inputs), normal(bottleneck, std=BIAS)
        self.up, self.up_bias = zeros(site.outputs, bottleneck), zeros(site.outputs)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y + F.linear(F.gelu(F.linear(x, self.down, self.down_bias)), self.up, self.up_bias)


class Prefix(Part):
    """n keys and n values of one attention."""

    def __init__(self, site: Site, tokens: int) -> None:
        super().__init__()
        assert site.heads is not None
        self.keys, self.values = (_xavier(tokens, site.heads.key, site.heads.width) for _ in range(2))
        self.length = tokens

    def keys_values(self, site: Site, call: "Call") -> KeysValues:
        return self.keys, self.values, None


class Prompt(Part):
    """n tokens of one attention, and the frozen projections that they go through."""

    def __init__(self, site: Site, k: Site, v: Site, tokens: int) -> None:
        super().__init__()
        assert site.heads is not None
        self.P = _xavier(tokens, k.inputs)
        self.projections, self.heads, self.length = (k, v), site.heads.key, tokens

    def keys_values(self, site: Site, call: "Call") -> KeysValues:
        keys, values = (self._projected(by) for by in self.projections)
        return keys, values, None

    def _projected(self, by: Site) -> Tensor:
        bias = None if by.bias is None else by.bias.to(self.P.dtype)
        return F.linear(self.P, by.weight.to(self.P.dtype), bias).unflatten(-1, (self.heads, -1))


@dataclass(frozen=True)
class ResTuning(Method):
    """A residual tuner beside attention, feed-forward network or whole block: adapter, prefix or prompt in one form."""

    attention: Annotated[Literal["adapter", "prefix", "prompt", "none"], "the tuner beside self-attention"] = "adapter"
    ffn: Annotated[Literal["adapter", "none"], "the tuner beside the feed-forward network"] = "adapter"
    block: Annotated[Literal["adapter", "none"], "the tuner beside the whole block"] = "none"
    bottleneck: Annotated[int, "width of adapters"] = 10
    tokens: Annotated[int, "length of prefix or prompt"] = 10

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bottleneck", "tokens")
        if {self.attention, self.ffn, self.block} == {"none"}:
            raise BadInput("ResTuning: attention, ffn and block are all 'none'. Try attention='adapter'.")

    @property
    def start(self) -> Literal["exact", "near", "elsewhere"]:  # type: ignore[override]
        """Adapters start as the base; keys of any value take a share of the attention."""
        return "elsewhere" if self._keys else "exact"

    @property
    def _keys(self) -> bool:
        return self.attention in ("prefix", "prompt")

    def expression(self) -> str:
        words = {"self: attention": self.attention, "ffn": self.ffn, "layer": self.block}
        chosen = [word for word, tuner in words.items() if tuner != "none"]
        return "; ".join([*chosen, "self: k v"] if self.attention == "prompt" else chosen)

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        return [(site, self._tuner(site, sites)) for site in _tuned(sites)]

    def groups(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        def tensors(keys: bool) -> list[nn.Parameter]:
            return [p for part in parts if isinstance(part, Prefix | Prompt) == keys for p in part.parameters()]

        fast = {"params": tensors(True), "lr": KEYS_FASTER * self.learning_rate}
        return [each for each in ({"params": tensors(False)}, fast) if each["params"]]

    def sizes(self) -> tuple[str, ...]:
        adapters = "adapter" in (self.attention, self.ffn, self.block)
        return (*(("bottleneck",) if adapters else ()), *(("tokens",) if self._keys else ()))

    def count(self, sites: Sequence[Site]) -> int:
        total, r = 0, self.bottleneck
        for site in _tuned(sites):
            if site.role != "attention" or self.attention == "adapter":
                total += r * (site.inputs + site.outputs + 1) + site.outputs
            elif self.attention == "prompt":
                total += self.tokens * _beside(site, "k", sites).inputs
            elif site.heads is not None:
                total += 2 * self.tokens * site.heads.key * site.heads.width
        return total

    def _tuner(self, site: Site, sites: Sequence[Site]) -> Part:
        if site.role != "attention" or self.attention == "adapter":
            return Adapter(site, self.bottleneck)
        if self.attention == "prefix":
            return Prefix(site, self.tokens)
        return Prompt(site, _beside(site, "k", sites), _beside(site, "v", sites), self.tokens)


def _tuned(sites: Sequence[Site]) -> list[Site]:
    return [site for site in sites if site.role in ("attention", "ffn", "layer")]


def _beside(site: Site, role: str, sites: Sequence[Site]) -> Site:
    return next(s for s in sites if (s.role, s.stack, s.layer, s.cross) == (role, site.stack, site.layer, site.cross))


def _xavier(*shape: int) -> nn.Parameter:
    """U(±√(6 / (in + out))) entries; what follows the first size counts as one."""
    bound = (6 / (shape[0] + torch.Size(shape[1:]).numel())) ** 0.5
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
