"""ReFT (Wu et al. 2024, arXiv 2404.03592): edit hidden states in a small subspace, at a few tokens of each row.

    loreft    h ← h + Rᵀ(W h + b − R h),   R ∈ R^{r×d} with orthonormal rows,  W ∈ R^{r×d},  b ∈ R^r
    noreft    the same with any R;   direft    h + Rᵀ(W h + b);   nodireft    direft with any R

The authors' library has these four; `nodireft` is what the paper calls DiReFT. Edited is what leaves each layer, at the
first `prefix` and the last `suffix` tokens of a row, by one intervention a layer (the paper's "tied"). The last tokens
are those of the prompt in the paper, and what generates cannot tell a prompt from what follows it: `suffix` is for
encoders, and `prefix="all"` edits every token.

R is the Q of what trains, with the signs that make its triangle's diagonal positive: orthonormal at every step, and a
continuous function of it. It does not start as the base: R is random, W as linear layers start, b = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.method import Method, Part, check, kaiming, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call


class Intervention(Part):
    """The edit of what leaves one layer."""

    def __init__(self, width: int, method: "ReFT") -> None:
        super().__init__()
        self.R, self.W, self.b = kaiming(method.rank, width), kaiming(method.rank, width), zeros(method.rank)
        self.orthonormal = method.variant in ("loreft", "direft")
        self.difference = method.variant in ("loreft", "noreft")
        self.prefix, self.suffix = method.prefix, method.suffix

    def subspace(self) -> Tensor:
        """R, (r, d)."""
        if not self.orthonormal:
            return self.R
        Q, triangle = torch.linalg.qr(self.R.float().T)  # factorizations know no half precision
        return torch.where(triangle.diagonal() < 0, -Q, Q).T.to(self.R.dtype)

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        R = self.subspace()
        wanted = F.linear(y, self.W, self.b)
        edit = (wanted - F.linear(y, R) if self.difference else wanted) @ R
        return torch.where(self._edited(call.places(y.shape[1], y.device))[..., None], y + edit, y)

    def _edited(self, places: Tensor) -> Tensor:
        """Which tokens, given each one's number in its row."""
        if self.prefix == "all":
            return places >= 0
        last = places.amax(-1, keepdim=True)
        return (places >= 0) & ((places < self.prefix) | (places > last - self.suffix))


@dataclass(frozen=True)
class ReFT(Method):
    """Edit the hidden states of a row's first or last tokens in a small subspace, and no weights."""

    rank: Annotated[int, "width of the subspace"] = 8
    variant: Annotated[
        Literal["loreft", "noreft", "direft", "nodireft"], "no: R need not be orthonormal; di: nothing is subtracted"
    ] = "loreft"
    prefix: Annotated[int | Literal["all"], "how many of a row's first tokens; all: every token"] = 7
    suffix: Annotated[int, "how many of a row's last tokens, in an encoder"] = 0
    sites: Annotated[str, "which layers, such as 'layer @ 4 8'"] = "layer"

    family: ClassVar[str] = "function"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")
        check(self.prefix == "all" or self.prefix >= 0, self, "prefix", "must be at least 0, or 'all'", "Try 7.")
        check(self.suffix >= 0, self, "suffix", "must be at least 0", "Try 7.")
        check(self.prefix != 0 or self.suffix > 0, self, "prefix", "and suffix leave no token to edit", "Try 7.")

    def build(self, site: Site) -> Part:
        if self.suffix and site.stack == "decoder":
            raise Refused(
                f"ReFT: suffix {self.suffix} at {site.name}: where a decoder's prompt ends is not known there. Use "
                "suffix 0, prefix 'all', or sites='encoder: layer' where there is an encoder."
            )
        if self.rank > site.outputs:
            raise BadInput(f"ReFT: rank {self.rank} at {site.name}, of width {site.outputs}: choose at most that.")
        return Intervention(site.outputs, self)

    def sizes(self) -> tuple[str, ...]:
        return ("rank",)

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.rank * (2 * site.outputs + 1) for site in sites)
