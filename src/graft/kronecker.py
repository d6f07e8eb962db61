"""Sums of Kronecker products, W = Σᵢ Aᵢ ⊗ Bᵢ for i = 1…n: a p×q matrix of pq/n + n³ numbers, which is never built.

Aᵢ ∈ R^{n×n} and Bᵢ ∈ R^{p/n × q/n}: what enters is read as n groups of p/n (PHM layers: Zhang et al. 2021, arXiv
2102.08597).
"""

import torch
from torch import Tensor, nn


def kronecker(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """x Σᵢ Aᵢ ⊗ Bᵢ: (…, p) → (…, q), for A (n, n, n) and B (n, p/n, q/n)."""
    # (…, n·p/n) → each group through every Bᵢ → groups mixed by Aᵢ, summed over i.
    through = torch.einsum("...pa,iac->...pic", x.unflatten(-1, (len(A), -1)), B)
    return torch.einsum("...pic,ipq->...qc", through, A).flatten(-2)


def glorot(n: int, inner: int, outer: int) -> nn.Parameter:
    """n matrices of inner by outer with U(±√(6/(inner + outer))) entries."""
    bound = (6 / (inner + outer)) ** 0.5
    return nn.Parameter(torch.empty(n, inner, outer).uniform_(-bound, bound))
