"""P-tuning (Liu et al. 2021, arXiv 2103.10385): virtual tokens that a small network computes while training.

    X′ = [e; E(x)],   e = MLP(BiLSTM(P)),   P ∈ R^{n×d},   MLP: d → d, ReLU, d → d

The BiLSTM has two layers of d/2 units in each direction. Its input is constant, so the deployed form is e alone.
`encoder="mlp"` leaves out the LSTM, as for few examples; `"hf"` is Hugging Face PEFT's: d → hidden → hidden → d with
two ReLUs; `"none"` is the deployed form. P starts N(0, 1), so the start is not the base.

Departures: the tokens stand in front of every input (of the encoder, in an encoder-decoder), where the paper puts them
around the words of a template; the base stays frozen, where some of the paper's experiments train it too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, kaiming, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

LAYERS = 2
Encoder = Literal["lstm", "mlp", "hf", "none"]


class Computed(Part):
    """n virtual tokens, through a network: LSTM weights are (direction, 4 gates, ·) with gates in PyTorch's order."""

    def __init__(self, start: Tensor, widths: Sequence[int], recurrent: bool) -> None:
        super().__init__()
        self.P, self.length = nn.Parameter(start), len(start)
        self.recurrent, self.depth = recurrent, len(widths)
        self.rate = 0.1 if widths else 1.0
        units = start.shape[1] // 2
        for k in range(LAYERS if recurrent else 0):
            for name, shape in (("x", (4 * units, start.shape[1])), ("h", (4 * units, units))):
                setattr(self, f"W{name}_{k}", _uniform(2, *shape, bound=units**-0.5))
                setattr(self, f"b{name}_{k}", _uniform(2, shape[0], bound=units**-0.5))
        for i, (inner, outer) in enumerate(zip([start.shape[1], *widths], widths, strict=False)):
            setattr(self, f"W_{i}", kaiming(outer, inner))
            setattr(self, f"b_{i}", zeros(outer))

    def tokens(self, call: "Call") -> Tensor:
        e: Tensor = self.P
        for k in range(LAYERS if self.recurrent else 0):
            e = self._both_ways(e, k)
        for i in range(self.depth):
            e = F.linear(e, getattr(self, f"W_{i}"), getattr(self, f"b_{i}"))
            e = e if i == self.depth - 1 else F.relu(e)
        return e

    def _both_ways(self, x: Tensor, k: int) -> Tensor:
        """One bidirectional LSTM layer, (n, d) → (n, d): both directions in step, the second from the end."""
        Wx, bx, Wh, bh = (getattr(self, f"{name}_{k}") for name in ("Wx", "bx", "Wh", "bh"))
        given = torch.stack((x, x.flip(0))) @ Wx.transpose(1, 2) + (bx + bh)[:, None]
        h = c = x.new_zeros(2, Wh.shape[2])
        states = []
        for t in range(len(x)):
            i, f, g, o = (given[:, t] + (Wh @ h[..., None])[..., 0]).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        forth, back = torch.stack(states, 1)
        return torch.cat((forth, back.flip(0)), -1)


@dataclass(frozen=True)
class PTuning(Method):
    """Virtual tokens in front of every input, computed by a small network that is dropped after training."""

    tokens: Annotated[int, "number of virtual tokens"] = 20
    encoder: Annotated[Encoder, "what computes the tokens; hf: PEFT's three linear maps; none: nothing"] = "lstm"
    hidden: Annotated[int, "width inside encoder hf"] = 128

    family: ClassVar[str] = "input"
    learning_rate: ClassVar[float] = 3e-1
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tokens", "hidden")

    def expression(self) -> str:
        return "embed"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        return [(site, self.build(site)) for site in sites[:1]]

    def build(self, site: Site) -> Part:
        if self.encoder == "lstm" and site.outputs % 2:
            raise BadInput(
                f"PTuning: an LSTM in two directions cannot halve the width {site.outputs}. Try encoder=mlp."
            )
        return Computed(normal(self.tokens, site.outputs, std=1.0).data, self._widths(site), self.encoder == "lstm")

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        with torch.no_grad():
            return {key: Computed(part.tokens(None), (), False) for key, part in parts.items()}  # type: ignore[arg-type]

    def serving(self) -> Method:
        return replace(self, encoder="none")

    def sizes(self) -> tuple[str, ...]:
        return ("tokens", "hidden") if self.encoder == "hf" else ("tokens",)

    def count(self, sites: Sequence[Site]) -> int:
        total = 0
        for site in sites[:1]:
            d, widths = site.outputs, self._widths(site)
            total += self.tokens * d + sum((i + 1) * o for i, o in zip([d, *widths], widths, strict=False))
            total += LAYERS * 2 * 4 * (d // 2) * (d + d // 2 + 2) if self.encoder == "lstm" else 0
        return total

    def _widths(self, site: Site) -> list[int]:
        """What each linear map gives."""
        d = site.outputs
        return {"lstm": [d, d], "mlp": [d, d], "hf": [self.hidden, self.hidden, d], "none": []}[self.encoder]


def _uniform(*shape: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
