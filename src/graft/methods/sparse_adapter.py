"""SparseAdapter (He et al. 2022, arXiv 2210.04284): a bottleneck adapter most of whose weights are pruned at the start.

    A(z) = z + σ(z (M_d ⊙ W_d) + b_d) (M_u ⊙ W_u) + b_u,   M = 1 at the (1 − s) largest scores of all weights

Scores: random; |w| (magnitude); |g ⊙ w| (SNIP); w ⊙ H g (GraSP); SynFlow, w ⊙ ∂R/∂w of the adapter alone with every
weight made positive, fed ones. `large` widens the bottleneck by 1/(1 − s), so that as many weights train as without
pruning ("Large-Sparse"). Biases are not pruned. Pruned are adapters of Pfeiffer's or Houlsby's placement, which begin
N(0, std²) and never at zero, where every score but random is 0.

Kept weights train as a vector of their own, so nothing revives a pruned one. SNIP and GraSP rank all weights together,
drawn anew, on the first `samples` training rows when training starts; until then the largest are kept. The other
scores rank each matrix by itself, since all are drawn alike. (The authors' `--sparsity` is the share that is kept.)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.gradients import differentiable, largest
from graft.anatomy.site import Site
from graft.method import ACTIVATIONS, Activation, Method, Part, check, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

Score = Literal["random", "magnitude", "snip", "grasp", "synflow"]


class Entries(Part):
    """A matrix (out, in) with few entries that train: their places in it flattened, and their values."""

    def __init__(self, out: int, width: int, std: float) -> None:
        super().__init__()
        self.shape, self.std = (out, width), std
        self.at: Tensor
        self.register_buffer("at", torch.empty(0, dtype=torch.int32))
        self.draw()

    def draw(self) -> None:
        """All entries, N(0, std²)."""
        drawn = torch.empty(self.shape, device=self.at.device).normal_(0.0, self.std).flatten()
        self._hold(torch.arange(len(drawn), device=drawn.device), drawn)

    def keep(self, at: Tensor) -> None:
        """Leave these entries alone, of all that there are."""
        at = at.sort().values
        self._hold(at, self.values.detach()[at])

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix, zero where entries were pruned."""
        whole = torch.zeros(self.shape, dtype=dtype, device=self.at.device)
        return whole.flatten().scatter(0, self.at.long(), self.values.to(dtype)).view(self.shape)

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        at, values = (tuple(shapes.get(name, ())) for name in ("at", "values"))
        if len(at) == 1 and at == values != tuple(self.at.shape):
            self._hold(torch.arange(at[0], device=self.at.device), torch.zeros(at, device=self.at.device))

    def _hold(self, at: Tensor, values: Tensor) -> None:
        self.at, self.values = at.to(torch.int32), nn.Parameter(values)


class SparseSeries(Part):
    """One pruned bottleneck on what leaves a sub-layer; `normed` reads it behind residual and norm, as Pfeiffer's."""

    def __init__(self, width: int, owner: "SparseAdapter") -> None:
        super().__init__()
        r = owner.width
        self.down, self.up = Entries(r, width, owner.std), Entries(width, r, owner.std)
        self.down_bias, self.up_bias = zeros(r), zeros(width)
        self.activation, self.reads_residual = owner.activation, owner.placement == "pfeiffer"

    def reads(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return call.normed(site, y) if self.reads_residual else y

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        z = self.reads(x, y, site, call)
        inner = ACTIVATIONS[self.activation](F.linear(z, self.down.dense(z.dtype), self.down_bias))
        return y + F.linear(inner, self.up.dense(y.dtype), self.up_bias)

    def prune(self, score: Score, kept: int) -> None:
        """Keep the `kept` weights of each matrix that score highest without data."""
        down, up = (matrix.dense(torch.float32).abs() for matrix in (self.down, self.up))
        scores = (down, up)
        if score == "random":
            scores = (torch.rand_like(down), torch.rand_like(up))
        elif score == "synflow":
            scores = (down * up.sum(0)[:, None], up * down.sum(1))
        for matrix, found in zip((self.down, self.up), scores, strict=True):
            matrix.keep(found.flatten().topk(kept).indices)

    def decayed(self) -> Iterable[nn.Parameter]:
        return (self.down.values, self.up.values)

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        for name, matrix in (("down", self.down), ("up", self.up)):
            matrix.resize({leaf: shapes.get(f"{name}.{leaf}", ()) for leaf in ("at", "values")})


@dataclass(frozen=True)
class SparseAdapter(Method):
    """A bottleneck adapter that is pruned before it trains: wider for the same number of weights."""

    bottleneck: Annotated[int, "width of the bottleneck"] = 64
    sparsity: Annotated[float, "s, the share of the adapter's weights that is pruned"] = 0.8
    score: Annotated[Score, "what decides which weights are kept"] = "snip"
    large: Annotated[bool, "widen the bottleneck by 1/(1 − s): as many weights as without pruning"] = False
    samples: Annotated[int, "training rows that snip and grasp score on"] = 128
    placement: Annotated[Literal["pfeiffer", "houlsby"], "after the ffn; houlsby: after attention too"] = "pfeiffer"
    activation: Annotated[Activation, "non-linearity inside"] = "relu"
    std: Annotated[float, "standard deviation of the initial weights"] = 0.02

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bottleneck", "samples")
        check(0 < self.sparsity < 1, self, "sparsity", "must be above 0 and below 1", "Try 0.8.")
        check(self.std > 0, self, "std", "must be above 0: weights at zero all score alike", "Try 0.02.")

    @property
    def width(self) -> int:
        """Of the bottleneck that is pruned."""
        return round(self.bottleneck / (1 - self.sparsity)) if self.large else self.bottleneck

    def expression(self) -> str:
        return "ffn" if self.placement == "pfeiffer" else "attention ffn"

    def build(self, site: Site) -> Part:
        part = SparseSeries(site.outputs, self)
        part.prune(self.score, self._kept(site))
        return part

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        own = [part for part in parts if isinstance(part, SparseSeries)]
        if self.score not in ("snip", "grasp") or any(bool(part.up_bias.any()) for part in own):  # zero until it trains
            return
        matrices = [matrix for part in own for matrix in (part.down, part.up)]
        entries = sum(len(matrix.at) for matrix in matrices)
        for matrix in matrices:
            matrix.draw()
        weights = [matrix.values for matrix in matrices]
        rows = list(_rows(batches, self.samples))
        with differentiable(model, [], training=False):
            found = _slopes((model(**batch).loss for batch in rows), weights)
            if self.score == "grasp":
                found = _slopes((_along(model(**batch).loss, weights, found) for batch in rows), weights)
        scores = [weight.detach() * slope for weight, slope in zip(weights, found, strict=True)]
        scores = [score.abs() for score in scores] if self.score == "snip" else scores
        for matrix, at in zip(matrices, largest(scores, entries), strict=True):
            matrix.keep(at)

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        if self.score not in ("snip", "grasp"):
            return ()
        return ("which weights are kept is decided on training rows, when training starts; until then, the largest",)

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(2 * self._kept(site) + self.width + site.outputs for site in sites)

    def drawn(self, sites: Sequence[Site]) -> int:
        return sum(2 * self.width * site.outputs for site in sites)

    def _kept(self, site: Site) -> int:
        """Weights that are left of each of a site's two matrices."""
        return max(1, round((1 - self.sparsity) * self.width * site.outputs))


def _rows(batches: Iterable[Mapping[str, Tensor]], most: int) -> Iterator[dict[str, Tensor]]:
    """Batches, of `most` rows together."""
    for batch in batches:
        yield {name: tensor[:most] for name, tensor in batch.items()}
        most -= len(next(iter(batch.values())))
        if most <= 0:
            return


def _slopes(values: Iterable[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """The derivative of a sum by each weight."""
    total = [torch.zeros_like(weight) for weight in weights]
    for value in values:
        for sum_, slope in zip(total, torch.autograd.grad(value, weights), strict=True):
            sum_ += slope
    return total


def _along(loss: Tensor, weights: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """How fast the loss changes along a direction, to be derived again."""
    slopes = torch.autograd.grad(loss, weights, create_graph=True)
    return torch.stack([(g * slope).sum() for g, slope in zip(direction, slopes, strict=True)]).sum()
