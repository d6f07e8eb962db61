"""Intrinsic dimension (Li et al. 2018, arXiv 1804.08838; Aghajanyan et al. 2020, arXiv 2012.13255): tune all of the
weights inside one small random subspace.

    vec(W_ℓ′) = vec(W_ℓ) + P_ℓ θ,   θ ∈ R^d shared by all sites;   said: λ_ℓ P_ℓ θ, with the λ_ℓ taken from d

P_ℓ is Gaussian (`dense`, n·d numbers in memory), or by Fastfood (Le et al. 2013, arXiv 1408.3060) H G Π H B on θ padded
to N = 2^⌈log₂ n⌉, in O(N log N) time: B random signs, Π a permutation, G Gaussian, H the Walsh-Hadamard matrix; then
‖P_ℓ θ‖ ≈ ‖θ‖ for each. Starts as the base: θ = 0, λ = 1. Gradients are those of the true adjoint B H Πᵀ G H, where the
authors' code is off by a factor of N. The papers move embeddings, norms and biases too. Nothing random is stored:
signs, orders and Gaussians are hashes of `seed` and the site's name, which no library's version changes.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.method import Method, Part, check, positive, zeros

Projection = Literal["dense", "fastfood", "said"]
LARGEST = 2**31  # entries of a dense projection, 8 GiB


class Subspace(Part):
    """θ, shared by all sites."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.theta = zeros(dimension)


class Projected(Part):
    """P_ℓ of one site, and with said its λ."""

    def __init__(self, site: Site, shared: Subspace, projection: Projection, seed: int) -> None:
        super().__init__()
        self.borrow(shared)
        n, d = site.weight.numel(), len(shared.theta)
        device, key = torch.empty(0).device, f"{seed} {site.name}"
        if projection == "said":
            self.lam = nn.Parameter(torch.ones(1))
        self.padded = 0 if projection == "dense" else 2 ** math.ceil(math.log2(max(n, d)))
        if projection == "dense":
            self._keep(P=gaussian(n * d, key, device).view(n, d) / n**0.5)
        else:
            G = gaussian(self.padded, key, device)
            signs = (hashes(self.padded, f"{key} signs", device) & 1) * 2 - 1
            self._keep(B=signs.to(torch.int8), order=hashes(self.padded, f"{key} order", device).argsort(stable=True))
            self._keep(G=G / (n**0.5 * G.norm()))

    def _keep(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def project(self, theta: Tensor, n: int) -> Tensor:
        """P_ℓ θ, (n,). Linear in plain operations, so that its gradient is the adjoint."""
        if not self.padded:
            return self.get_buffer("P").to(theta) @ theta
        B, G, order = (self.get_buffer(name) for name in ("B", "G", "order"))
        x = hadamard(nn.functional.pad(theta, (0, self.padded - len(theta))) * B.to(theta))
        return hadamard(x[order] * G.to(theta))[:n]

    def params(self, site: Site) -> dict[str, Tensor]:
        theta, weight = self.lent[0].theta, site.weight
        update = self.project(theta.to(site.weight.device), weight.numel()).view(weight.shape)
        return {site.parameter: weight.to(update.dtype) + (self.lam * update if "lam" in self._parameters else update)}


def hadamard(x: Tensor) -> Tensor:
    """H x for the Walsh-Hadamard matrix H of ±1; x: (2^k,). As products with small ones, H of 2^(a+b) being H ⊗ H."""
    left = len(x).bit_length() - 1
    while left:
        bits, H = min(7, left), x.new_ones(1, 1)
        for _ in range(bits):
            H = torch.cat((torch.cat((H, H), 1), torch.cat((H, -H), 1)))
        # Turned each time, the axes are as they were in the end.
        x, left = (H @ x.view(2**bits, -1)).T.reshape(-1), left - bits
    return x


def hashes(n: int, key: str, device: torch.device) -> Tensor:
    """n numbers of 53 bits that look random: SplitMix64 (Steele et al. 2014), started at a hash of `key`."""

    def signed(value: int) -> int:
        return (value + 2**63) % 2**64 - 2**63

    def shifted(z: Tensor, by: int) -> Tensor:
        return (z >> by) & (2 ** (64 - by) - 1)  # torch's shift keeps the sign

    if device.type == "meta":
        return torch.empty(n, dtype=torch.int64, device=device)
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little", signed=True)
    z = torch.arange(1, n + 1, device=device) * signed(0x9E3779B97F4A7C15) + start
    z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
    return shifted(z ^ shifted(z, 31), 11)


def gaussian(n: int, key: str, device: torch.device) -> Tensor:
    """n numbers of N(0, 1) from `hashes`, by Box and Muller."""
    if device.type == "meta":
        return torch.empty(n, device=device)
    u, v = ((hashes(n, f"{key} {which}", device).double() + 0.5) / 2**53 for which in ("radius", "angle"))
    return ((-2 * u.log()).sqrt() * (2 * math.pi * v).cos()).float()


@dataclass(frozen=True)
class IntrinsicSubspace(Method):
    """All weights move together in one random subspace of d dimensions: d parameters in all. Merges."""

    dimension: Annotated[int, "d, what trains in all"] = 1000
    projection: Annotated[Projection, "of θ to a weight; said: fastfood, and a trained scale for each weight"] = "said"
    seed: Annotated[int, "what the projections are made from"] = 0
    sites: Annotated[str, "whose weights"] = "all-linear"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "dimension")
        check(self.seed >= 0, self, "seed", "must be at least 0", "Try 0.")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        free = self.dimension - (len(sites) if self.projection == "said" else 0)
        if free < 1:
            raise BadInput(
                f"IntrinsicSubspace: dimension {self.dimension} leaves nothing beside a scale for each of {len(sites)} "
                f"weights: choose at least {len(sites) + 1}, or projection=fastfood."
            )
        weights = sum(site.weight.numel() for site in sites)
        if free > weights:
            raise BadInput(
                f"IntrinsicSubspace: {free:,} dimensions are no subspace of {weights:,} weights. Choose fewer."
            )
        entries = free * weights
        if self.projection == "dense" and entries > LARGEST:
            raise Refused(
                f"a dense projection to {free} dimensions has {entries:,} entries here, and {LARGEST:,} is the most "
                "that is kept. Use projection=fastfood."
            )
        shared = Subspace(free)
        return [(None, shared), *((site, Projected(site, shared, self.projection, self.seed)) for site in sites)]

    def sizes(self) -> tuple[str, ...]:
        return ("dimension",)

    def count(self, sites: Sequence[Site]) -> int:
        return self.dimension

    def drawn(self, sites: Sequence[Site]) -> int:
        # Fastfood: signs, an order and Gaussians, each as long as the longer of the two, rounded up to a power of two.
        sizes = [max(self.dimension, site.inputs * site.outputs) for site in sites]
        return self.dimension + (3 * sum(2 * size for size in sizes) if self.projection != "dense" else 0)
