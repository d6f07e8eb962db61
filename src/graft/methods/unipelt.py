"""UniPELT (Mao et al. 2022, arXiv 2110.07577): prefix tuning, LoRA and an adapter in every block, each behind a gate.

    K′ = [g P_k; K],  V′ = [g P_v; V];   q, v: y + g·(α/r) B A x;   FFN(a) + g·A(z);   g = mean_t σ(u_t·w + b)

w ∈ R^d starts N(0, 0.02²), b at 0, so each gate starts half open. u is what the module reads: what enters the attention
for prefix and LoRA, z = LN₂(FFN(a) + a) for the adapter, which is Pfeiffer's. The prefix's gate shrinks its logits too:
shut, it still leaves n keys at zero. With gates that depend on the row nothing merges.

In the authors' code the gate replaces LoRA's α/r, as α = r does here; AdapterHub has both, α = 2.

Departures: means leave out padding, which the authors' code counts; in a decoder the mean is over the tokens so far, or
the gate would let every token see those behind it. (What reads the encoder's states takes the mean of all of them.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.method import Activation, Method, Part, check, normal, positive, zeros
from graft.methods.lora import LoRA, LowRank
from graft.methods.pfeiffer import AfterNorm, Pfeiffer
from graft.methods.prefix_tuning import Borrowed, Prefix, PrefixTuning

if TYPE_CHECKING:
    from graft.attach.call import Call


class Gated(Part):
    """A part with a gate."""

    def closable(self, width: int) -> None:
        """Give it the gate's tensors."""
        self.w, self.b = normal(width, std=0.02), zeros(1)

    def gate(self, u: Tensor, site: Site, call: "Call") -> Tensor:
        """How far the gate is open, (..., 1), for each token of u (..., d)."""
        each = torch.sigmoid(u @ self.w + self.b)
        if site.cross and site.role == "v":  # it reads what the encoder made, of which nothing lies ahead
            real = torch.ones_like(each) if call.memory_mask is None else call.memory_mask.to(each.dtype)
            return ((each * real).sum(-1) / real.sum(-1))[:, None, None].expand_as(u[..., :1])
        each = each.view(-1, 1, call.tokens, 1) if each.dim() == 1 else each[:, None, :, None]  # some models drop rows
        seen, _ = call.extend(f"{site.name}/gate", each, each)
        hidden = call.hidden(each.shape[2], seen.shape[2], u.device)
        if hidden is None:
            return seen.mean(2, keepdim=True).expand_as(each).reshape(*u.shape[:-1], 1)
        share = (~hidden).to(each.dtype)
        return ((share @ seen) / share.sum(-1, keepdim=True)).reshape(*u.shape[:-1], 1)


class GatedLowRank(Gated, LowRank):
    """LoRA's update behind a gate."""

    params, changed, bound = Part.params, Part.changed, Part.bound

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y + self.gate(x, site, call) * self.update(x)


class GatedAdapter(Gated, AfterNorm):
    """Pfeiffer's adapter behind a gate."""

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        z = call.normed(site, y)
        return y + self.gate(z, site, call) * self.adapt(z)


class GatedPrefix(Gated, Prefix):
    """One attention's keys and values behind a gate."""

    reads_input = True

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        return self.keys, self.values, self.gate(call.input(site), site, call)[..., 0]


class GatedBorrowed(Gated, Borrowed):
    """The same, computed by a network that the layers share."""

    reads_input = True

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        keys, values = self.lent[0].layer(self.index)
        return keys, values, self.gate(call.input(site), site, call)[..., 0]

    def flat(self) -> GatedPrefix:
        """Without the network."""
        part = GatedPrefix(*self.lent[0].layer(self.index).clone())
        part.w, part.b = self.w, self.b
        return part


@dataclass(frozen=True)
class UniPELT(Method):
    """Prefix tuning, LoRA and an adapter in every block, each behind a gate that the input opens."""

    tokens: Annotated[int, "number of virtual keys"] = 10
    reparameterize: Annotated[bool, "compute the prefixes with a small network while training"] = True
    hidden: Annotated[int, "width of that network"] = 512
    rank: Annotated[int, "width of LoRA's update of q and v"] = 8
    alpha: Annotated[float, "LoRA's update is scaled by alpha/rank, beside the gate"] = 8.0
    bottleneck: Annotated[int, "width of the adapter"] = 48
    activation: Annotated[Activation, "non-linearity inside the adapter"] = "relu"

    family: ClassVar[str] = "hybrid"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens", "hidden", "rank", "bottleneck")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave LoRA out", "Try 8.")

    def expression(self) -> str:
        return "attention q v ffn"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        grown: list[tuple[Site | None, Part]] = []
        for site, part in self._prefixes().grow([site for site in sites if site.role == "attention"]):
            grown.append((site, part if site is None else self._gated(part)))
        grown += [(site, self.build(site)) for site in sites if site.role != "attention"]
        for site, part in grown:
            if site is not None and isinstance(part, Gated):
                part.closable(site.inputs)
        return grown

    def build(self, site: Site) -> Part:
        if site.role == "ffn":
            return GatedAdapter(site.outputs, self.bottleneck, self.activation, "bert")
        return GatedLowRank(site, self.rank, self.alpha / self.rank, dropout=0.0)

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        if not self.reparameterize:
            return parts
        with torch.no_grad():
            kept = {key: part for key, part in parts.items() if isinstance(part, Gated)}
            return {key: part.flat() if isinstance(part, GatedBorrowed) else part for key, part in kept.items()}

    def serving(self) -> Method:
        return replace(self, reparameterize=False)

    def sizes(self) -> tuple[str, ...]:
        network = ("hidden",) if self.reparameterize else ()
        return ("tokens", *network, "rank", "bottleneck")

    def count(self, sites: Sequence[Site]) -> int:
        terms = ((self._prefixes(), "attention"), (LoRA(self.rank), "q v"), (Pfeiffer(self.bottleneck), "ffn"))
        plain = sum(term.count([site for site in sites if site.role in roles.split()]) for term, roles in terms)
        return plain + sum(site.inputs + 1 for site in sites)

    def _prefixes(self) -> PrefixTuning:
        return PrefixTuning(self.tokens, self.reparameterize, self.hidden)

    def _gated(self, part: Part) -> Part:
        if isinstance(part, Borrowed):
            return GatedBorrowed(part.lent[0], part.index, part.length)
        assert isinstance(part, Prefix)
        return GatedPrefix(part.keys.data, part.values.data)
