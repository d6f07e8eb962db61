"""ConvAdapter (Li et al. 2023, SURE, arXiv 2303.03267): narrow convolutions over time after every block.

    c = C₃ C₂ ReLU(C₁ LN(x)),   x ← x + c ⊙ σ(W₂ ReLU(W₁ mean_t c))

C₁ ∈ R^{e×2×3}, C₂ ∈ R^{e×1×5}, C₃ ∈ R^{d×1×3} are grouped into e = d/2 and W₁ squeezes d to d/16; no biases. Made for
wav2vec 2.0, whose published form `init="published"` draws C₃ too; C₃ = 0 starts as the base. (The size that the paper
prints for it does not follow from its code.)

In a decoder the convolutions look back alone and the mean runs over the tokens so far; when decoding, what they read
and what they gave are two further layers of the model's cache, which grow with the row as all of it does (nine tokens
and a sum would do, and could not be cropped). Padding and virtual tokens count as zeros and as no
part of the mean, which the published form leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

KERNELS = (3, 5, 3)
REACH = sum(kernel - 1 for kernel in KERNELS)  # how far back a causal output sees


class Convolutions(Part):
    """C₁, C₂, C₃ and the squeeze of one block."""

    def __init__(self, width: int, squeezed: int, zero: bool) -> None:
        super().__init__()
        inner, (first, second, third) = width // 2, KERNELS
        self.gain, self.shift = nn.Parameter(torch.ones(width)), zeros(width)
        self.C1 = nn.Parameter(kaiming(inner, 2 * first).detach().view(inner, 2, first))
        self.C2 = kaiming(inner, 1, second)
        self.C3 = zeros(width, 1, third) if zero else kaiming(width, 1, third)
        self.W1, self.W2 = kaiming(squeezed, width), kaiming(width, squeezed)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        n = y.shape[1]
        places = call.places(n, y.device)[..., None]
        real = (places >= 0).to(y.dtype)
        u = F.layer_norm(y, self.gain.shape, self.gain, self.shift) * real
        if call.causal:
            u = self._with_past(call, f"{site.name}/in", u)[:, -(n + REACH) :]
            c = self._convolve(u, None)[:, -n:] * real
            sums = self._with_past(call, f"{site.name}/out", c).float().cumsum(1)[:, -n:]
            mean = sums / (places + 1).clamp(min=1)
        else:
            c = self._convolve(u, real)
            mean = c.float().sum(1, keepdim=True) / real.expand_as(c[..., :1]).sum(1, keepdim=True).clamp(min=1)
        gate = F.linear(F.relu(F.linear(mean.to(y.dtype), self.W1)), self.W2).sigmoid()
        return y + c * gate

    def _convolve(self, u: Tensor, real: Tensor | None) -> Tensor:
        """The three convolutions of (batch, n, d); causal without `real`, which zeroes what is between them too."""
        c = u.transpose(1, 2)
        for number, C in enumerate((self.C1, self.C2, self.C3)):
            around = C.shape[-1] - 1
            c = F.conv1d(F.pad(c, (around, 0) if real is None else (around // 2, around // 2)), C, groups=len(self.C2))
            c = F.relu(c) if number == 0 else c
            c = c if real is None else c * real.transpose(1, 2)
        return c.transpose(1, 2)

    def _with_past(self, call: "Call", name: str, states: Tensor) -> Tensor:
        """States of all tokens so far, (batch, past + n, d)."""
        keys = states[:, None]
        return call.extend(name, keys, keys[..., :0])[0][:, 0]


@dataclass(frozen=True)
class ConvAdapter(Method):
    """Grouped convolutions over time after every block, weighted by channel: for speech, and causal in decoders."""

    reduction: Annotated[int, "the squeeze is this many times narrower than the model"] = 16
    init: Annotated[Literal["zero", "published"], "zero: start as the base; published: draw all convolutions"] = "zero"
    sites: Annotated[str, "after which layers"] = "layer"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "reduction")

    def build(self, site: Site) -> Part:
        if site.outputs % 2 or site.outputs < self.reduction:
            raise BadInput(
                f"ConvAdapter: at {site.name} the width {site.outputs} has to be even, and at least the reduction "
                f"{self.reduction}. Choose a smaller reduction, or another base."
            )
        return Convolutions(site.outputs, site.outputs // self.reduction, self.init == "zero")

    def sizes(self) -> tuple[str, ...]:
        return ("reduction",)

    def count(self, sites: Sequence[Site]) -> int:
        first, second, third = KERNELS
        each = ((s.outputs, s.outputs // 2, s.outputs // self.reduction) for s in sites)
        return sum(d * (2 + third + 2 * squeezed) + e * (2 * first + second) for d, e, squeezed in each)
