"""Bi-Adapter (Jie, Wang, Deng 2023, arXiv 2307.16867): a parallel bottleneck whose weights are a few bits each.

    FFN(a) ← FFN(a) + s·ReLU(a Q(W_d)) Q(W_u),   Q(W) = σ·q + μ,   q = the codebook's nearest to (W − μ)/(σ + 1e-5)

μ and σ are the mean and deviation of W's entries. The codebook has 2^b numbers, each the median of N(0, 1) between the
midpoints to its neighbors, as in the authors' code: ±0.6745 for one bit, where least squares would give ±0.7979.
Gradients pass q as if it were (W − μ)/σ, and go through μ and σ. Stored and served are b bits a weight, and μ and σ;
of this `packed` form μ and σ alone would train.

Reads the residual stream, without biases, as AdaptFormer. W_u starts with σ = 1e-3 and near the base: at zero there is
nothing to normalize. Departure: the paper has a host that is a LoRA too, and here it is AdaptFormer's alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.method import Method, Part, check, kaiming, positive

if TYPE_CHECKING:
    from graft.attach.call import Call

SMALL = 1e-5  # added to σ
STD = 1e-3  # of the start of W_u
REPEATED, NEWTON = 50, 8  # steps to the codebook


@cache
def codebook(bits: int) -> tuple[float, ...]:
    """The 2^bits numbers, ascending: for N(0, 1) those of least expected distance. Repeated until near, then Newton."""
    ndtr, ndtri = torch.special.ndtr, torch.special.ndtri
    with torch.device("cpu"):
        # Such numbers lie as densely as the root of the density, which is that of N(0, 2).
        q = 2**0.5 * ndtri((torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits)
        for step in range(REPEATED + NEWTON):
            ends = F.pad((q[1:] + q[:-1]) / 2, (1, 1), value=torch.inf)
            ends[0] = -torch.inf
            median = (ndtr(ends[1:]) + ndtr(ends[:-1])) / 2
            if step < REPEATED:
                q = ndtri(median)
                continue
            at, between = _density(q), _density(ends) / 4
            slope = torch.diag(at - between[1:] - between[:-1])
            slope -= torch.diag(between[1:-1], 1) + torch.diag(between[1:-1], -1)
            q = q - torch.linalg.solve(slope, ndtr(q) - median)
    return tuple(q.tolist())


def _density(x: Tensor) -> Tensor:
    return (-x.square() / 2).exp() / math.tau**0.5


class Quantized(Part):
    """A matrix in full precision, which is used as if each entry had been stored in a few bits."""

    def __init__(self, weight: nn.Parameter, bits: int) -> None:
        super().__init__()
        self.weight, self.bits = weight, bits
        self.q: Tensor
        self.register_buffer("q", weight.new_tensor(codebook(bits)), persistent=False)

    def normalized(self) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix with mean 0 and deviation 1, and what its were, (2,); and the place in the codebook of each."""
        scale = torch.stack((self.weight.mean(), self.weight.std()))
        normal = (self.weight - scale[0]) / (scale[1] + SMALL)
        return normal, scale, torch.bucketize(normal.detach(), (self.q[1:] + self.q[:-1]) / 2)

    def dense(self) -> Tensor:
        """The matrix as it would be read from its bits."""
        normal, scale, places = self.normalized()
        return (self.q[places] + (normal - normal.detach())) * scale[1] + scale[0]

    def packed(self) -> "Packed":
        """The bits."""
        _, scale, places = self.normalized()
        return Packed(self.weight.shape, self.bits, scale.detach(), places)


class Packed(Part):
    """A matrix as bits, the lowest of an entry first and eight to a byte, and its mean and deviation."""

    def __init__(self, shape: torch.Size, bits: int, scale: Tensor, places: Tensor) -> None:
        super().__init__()
        self.shape, self.bits, self.scale = shape, bits, nn.Parameter(scale)
        self.q: Tensor
        self.register_buffer("q", scale.new_tensor(codebook(bits)), persistent=False)
        flat = (places.flatten()[:, None] >> torch.arange(bits, device=places.device)) & 1
        eights = F.pad(flat.flatten(), (0, -flat.numel() % 8)).view(-1, 8)
        self.codes: Tensor
        self.register_buffer("codes", (eights << torch.arange(8, device=places.device)).sum(1).to(torch.uint8))

    def dense(self) -> Tensor:
        """The matrix that was packed."""
        device = self.codes.device
        flat = ((self.codes[:, None].long() >> torch.arange(8, device=device)) & 1).flatten()
        flat = flat[: self.shape.numel() * self.bits].view(-1, self.bits)
        places = (flat << torch.arange(self.bits, device=device)).sum(1)
        return self.q[places].view(self.shape) * self.scale[1] + self.scale[0]


class FewBits(Part):
    """One bottleneck from the residual stream to a sub-layer's output."""

    reads_residual = True

    def __init__(self, down: Quantized | Packed, up: Quantized | Packed, scale: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up, self.scale, self.dropout = down, up, scale, dropout

    def reads(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return call.residual(site)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        a = self.reads(x, y, site, call)
        inner = self.drop(F.relu(F.linear(a, self.down.dense().to(a.dtype))))
        return y + self.scale * F.linear(inner, self.up.dense().to(a.dtype))

    def packed(self) -> "FewBits":
        """The form that is stored."""
        if isinstance(self.down, Packed) or isinstance(self.up, Packed):
            return self
        return FewBits(self.down.packed(), self.up.packed(), self.scale, self.dropout)


@dataclass(frozen=True)
class BiAdapter(Method):
    """A parallel bottleneck adapter trained for, and stored in, 1 to 8 bits a weight."""

    bottleneck: Annotated[int, "width of the bottleneck"] = 32
    bits: Annotated[int, "bits of a stored weight, 1 to 8"] = 1
    scale: Annotated[float, "factor on the adapter's output"] = 1.0
    dropout: Annotated[float, "dropout inside the bottleneck, in training"] = 0.1
    packed: Annotated[bool, "attach the bits alone, as they are stored"] = False
    sites: Annotated[str, "which sub-layers: ffn, attention, or both"] = "ffn"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "near"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bottleneck")
        check(1 <= self.bits <= 8, self, "bits", "must be 1 to 8", "Try 1.")
        check(self.scale != 0, self, "scale", "must not be 0, which would leave the base as it is", "Try 1.")
        check(0 <= self.dropout < 1, self, "dropout", "must be at least 0 and below 1", "Try 0.1.")

    def build(self, site: Site) -> Part:
        up = nn.init.trunc_normal_(torch.empty(site.outputs, self.bottleneck), std=STD, a=-2 * STD, b=2 * STD)
        down = Quantized(kaiming(self.bottleneck, site.inputs), self.bits)
        made = FewBits(down, Quantized(nn.Parameter(up), self.bits), self.scale, self.dropout)
        return made.packed() if self.packed else made

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: part.packed() for key, part in parts.items() if isinstance(part, FewBits)}

    def serving(self) -> Method:
        return replace(self, packed=True)

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(4 if self.packed else self.bottleneck * (site.inputs + site.outputs) for site in sites)

    def drawn(self, sites: Sequence[Site]) -> int:
        return replace(self, packed=False).count(sites)
