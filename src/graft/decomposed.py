"""Magnitude and direction of a matrix apart, its direction moved by another update (Liu et al. 2024, arXiv 2402.09353).

    W″ = m ⊙ W′ / ‖W′‖_row,   W′ = W + ΔW of the other update,   m ∈ R^{out}

Starts as the base because m = ‖W‖_row; the norm is a constant in backward. With LoRA's update it is `DoRA`, which has a
cheaper form of its own; with VeRA's it is the paper's DVoRA. The matrix is built in each step, once for all rows.
"""

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.part import Part


def scaled(m: Tensor, direction: Tensor) -> Tensor:
    """Rows in these directions, as long as `m` says."""
    return (m / direction.detach().norm(dim=-1))[:, None] * direction


class Decomposed(Part):
    """m, and the part that moves the direction."""

    def __init__(self, site: Site, inner: Part) -> None:
        super().__init__()
        self.inner = inner
        self.m = nn.Parameter(torch.linalg.vector_norm(site.weight.detach().float(), dim=-1))

    def params(self, site: Site) -> dict[str, Tensor]:
        return {site.parameter: scaled(self.m, self.inner.params(site)[site.parameter])}
