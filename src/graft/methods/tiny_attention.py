"""Tiny-attention adapters (Zhao, Tan, Mei 2022, arXiv 2211.01979): attention one number wide, after attention.

    z ← z + softmax(Q Kᵀ/√h + mask) V W_o,   Q, K, V = LN(z) W_q, LN(z) W_k, LN(z) W_v ∈ R^{T×H·h},   z = Attn(x)

With biases and a layer norm, which the paper's counts need and its equations leave out; `bias` and `layernorm` switch
them off. `form="parallel"` reads x. W_o = 0 (and its bias) starts as the base. The host's mask is its own: it sees no
padding, nothing outside a sliding window and, in a decoder, not the future; when decoding, its keys and values are a
further layer of the model's cache. (To average heads into one for deployment is an approximation, and left out.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import Refused
from graft.method import Method, Part, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Tiny(Part):
    """One attention of H heads, h wide, on what leaves (or enters) the host's attention."""

    def __init__(self, read: int, width: int, heads: int, head_width: int, bias: bool, norm: bool, reads_x: bool):
        super().__init__()
        inner, self.heads, self.reads_x = heads * head_width, heads, reads_x
        self.W_q, self.W_k, self.W_v = (kaiming(inner, read) for _ in range(3))
        self.W_o = zeros(width, inner)
        biases = [zeros(n) if bias else None for n in (inner, inner, inner, width)]
        self.b_q, self.b_k, self.b_v, self.b_o = biases
        self.gain = nn.Parameter(torch.ones(read)) if norm else None
        self.shift = zeros(read) if norm else None

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        z = x if self.reads_x else y
        if self.gain is not None:
            z = F.layer_norm(z, self.gain.shape, self.gain, self.shift)
        maps = ((self.W_q, self.b_q), (self.W_k, self.b_k), (self.W_v, self.b_v))
        q, k, v = (F.linear(z, W, b).unflatten(-1, (self.heads, -1)).transpose(1, 2) for W, b in maps)
        k, v = call.extend(site.name, k, v)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        hidden = call.hidden(q.shape[2], k.shape[2], y.device, site.window)
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return y + F.linear(mixed, self.W_o, self.b_o)


@dataclass(frozen=True)
class TinyAttention(Method):
    """A second attention of minuscule width after every block's own."""

    heads: Annotated[int, "number of heads"] = 1
    width: Annotated[int, "width of a head"] = 1
    bias: Annotated[bool, "give the four projections biases"] = True
    layernorm: Annotated[bool, "norm what it reads"] = True
    form: Annotated[Literal["series", "parallel"], "read what leaves the block's attention, or what enters it"] = (
        "series"
    )
    sites: Annotated[str, "which attentions"] = "self: attention"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "heads", "width")

    def build(self, site: Site) -> Part:
        if site.role != "attention":
            raise Refused(f"TinyAttention cannot act at {site.name}: it goes with an attention. Choose such sites.")
        parallel = self.form == "parallel"
        return Tiny(self._read(site), site.outputs, self.heads, self.width, self.bias, self.layernorm, parallel)

    def sizes(self) -> tuple[str, ...]:
        return ("heads",)

    def count(self, sites: Sequence[Site]) -> int:
        inner, total = self.heads * self.width, 0
        for site in sites:
            read = self._read(site)
            total += inner * (3 * read + site.outputs) + self.bias * (3 * inner + site.outputs)
            total += 2 * read * self.layernorm
        return total

    def _read(self, site: Site) -> int:
        return site.inputs if self.form == "parallel" else site.outputs
