"""Matrices from one model's hidden states to another's, fitted to both models' on the same tokens.

    orthogonal      R = U Vᵀ of Xᵀ Y = U Σ Vᵀ                 Procrustes (Schönemann 1966); U, V are thin
    least squares   B = argmin ‖X B − Y‖² + λ‖B − R‖²
    identity        B = I, cut or filled with zeros

λ is large, a tenth of the mean square of the states: what crosses a bridge are changes of states, which point where
states hardly do. There plain least squares has huge entries, and what is plugged in destroys the larger model.
Only sums over tokens are kept, so that the texts may be long.
"""

from typing import Literal

import torch
from torch import Tensor

Fit = Literal["least_squares", "orthogonal", "identity"]
RIDGE = 0.1  # λ, as a share of the mean square of a state along any direction


class Moments:
    """Xᵀ X, Xᵀ Y and ‖Y‖² of the tokens seen so far."""

    def __init__(self) -> None:
        self.square = self.product = torch.zeros(0)
        self.norm, self.tokens = 0.0, 0

    def add(self, X: Tensor, Y: Tensor) -> None:
        """More tokens, (n, width of X) and (n, width of Y)."""
        X, Y = (each.cpu().double() if each.device.type == "mps" else each.double() for each in (X, Y))
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


def fitted(seen: Moments, fit: Fit) -> Tensor:
    """The bridge of these tokens, in single precision."""
    if fit == "identity":
        return torch.eye(*seen.product.shape, device=seen.product.device)
    U, _, Vt = torch.linalg.svd(seen.product, full_matrices=False)
    R = U @ Vt
    if fit == "orthogonal":
        return R.float()
    width = len(seen.square)
    λ = RIDGE * seen.square.trace() / width + 1e-30
    unit = torch.eye(width, dtype=seen.square.dtype, device=seen.square.device)
    return torch.linalg.solve(seen.square + λ * unit, seen.product + λ * R).float()
