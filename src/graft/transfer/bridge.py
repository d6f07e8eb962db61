"""Matrices from one model's hidden states to another's, fitted to both models' on the same tokens.

    least squares   B = argmin ‖X B − Y‖² + λ‖B‖²      λ of a few, by the rows held out
    orthogonal      B = U Vᵀ of Xᵀ Y = U Σ Vᵀ           Procrustes (Schönemann 1966); of unequal widths U and V are thin
    identity        B = I, cut or filled with zeros

Only sums over tokens are kept, so that the texts may be long.
"""

from typing import Literal

import torch
from torch import Tensor

Fit = Literal["least_squares", "orthogonal", "identity"]
RIDGES = (1e-6, 1e-4, 1e-2)  # λ, as a share of the mean square of a state's entry


class Moments:
    """Xᵀ X, Xᵀ Y and ‖Y‖² of the tokens seen so far."""

    def __init__(self) -> None:
        self.square = self.product = torch.zeros(0)
        self.norm, self.tokens = 0.0, 0

    def add(self, X: Tensor, Y: Tensor) -> None:
        """More tokens, (n, width of X) and (n, width of Y)."""
        X, Y = X.double(), Y.double()
        if not self.tokens:
            self.square, self.product = X.new_zeros(X.shape[1], X.shape[1]), X.new_zeros(X.shape[1], Y.shape[1])
        self.square += X.T @ X
        self.product += X.T @ Y.to(X.device)
        self.norm += float(Y.square().sum())
        self.tokens += len(X)

    def mismatch(self, B: Tensor) -> float:
        """‖X B − Y‖² / ‖Y‖²: 0 where the bridge is right, 1 where it says nothing."""
        B = B.to(self.square)
        error = (B * (self.square @ B)).sum() - 2 * (B * self.product).sum() + self.norm
        return max(float(error), 0.0) / max(self.norm, 1e-30)


def fitted(seen: Moments, held_out: Moments, fit: Fit) -> Tensor:
    """The bridge of these tokens, in single precision."""
    if fit == "identity":
        return torch.eye(*seen.product.shape, device=seen.product.device)
    if fit == "orthogonal":
        U, _, Vt = torch.linalg.svd(seen.product, full_matrices=False)
        return (U @ Vt).float()
    width = len(seen.square)
    unit = torch.eye(width, dtype=seen.square.dtype, device=seen.square.device) * (seen.square.trace() / width + 1e-30)
    each = [torch.linalg.solve(seen.square + ridge * unit, seen.product) for ridge in RIDGES]
    return min(each, key=held_out.mismatch).float()
