"""Intrinsic subspaces: counts, the projections against matrices written out, the true adjoint, hashes, refusals."""

import hashlib
import math
from pathlib import Path

import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

import cases
import zoo
from graft import checkpoint
from graft.anatomy import examine, select
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.methods.intrinsic_subspace import IntrinsicSubspace, Projected, Subspace, gaussian, hadamard, hashes
from methods.sizes import counts

ALL = ("dense", "fastfood", "said")
CPU = torch.device("cpu")


@pytest.mark.parametrize("projection", ALL)
def test_counts_are_the_dimension(projection: str) -> None:
    found = counts("roberta-base", IntrinsicSubspace(dimension=100, projection=projection, sites="q v"))
    assert (found.trainable, found.stored) == (100, 4 * (100 + found.head))
    assert (found.changed, found.rank) == (24 * 768 * 768, 768)


def part(n_out: int, n_in: int, dimension: int, projection: str, seed: int = 0) -> Projected:
    """The projection to one matrix of that size."""
    model = zoo.tiny("llama", hidden_size=n_in, intermediate_size=n_out, num_attention_heads=2, head_dim=4)
    site = next(s.bind(model) for s in select(examine(model), "up").sites)
    return Projected(site, Subspace(dimension), projection, seed)


def matrix(made: Projected, n: int, d: int) -> Tensor:
    """P, a column for each dimension."""
    return torch.stack([made.project(unit, n) for unit in torch.eye(d)], 1)


@pytest.mark.parametrize("size", [1, 2, 64, 128, 256, 2**14])
def test_hadamard(size: int) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if size <= 256:
        torch.testing.assert_close(hadamard(x), torch.tensor(scipy.linalg.hadamard(size)).double() @ x)
    torch.testing.assert_close(hadamard(hadamard(x)), size * x)


def test_fastfood_written_out() -> None:
    made, n, d, N = part(10, 8, 20, "fastfood"), 80, 20, 128
    H = torch.tensor(scipy.linalg.hadamard(N)).float()
    B, G, order = torch.diag(made.B.float()), torch.diag(made.G), torch.eye(N)[made.order]
    torch.testing.assert_close(matrix(made, n, d), (H @ G @ order @ H @ B)[:n, :d], atol=1e-5, rtol=1e-5)
    assert set(made.B.tolist()) == {-1, 1} and sorted(made.order.tolist()) == list(range(N))


@pytest.mark.parametrize("projection", ALL)
def test_gradients_are_those_of_the_true_adjoint(projection: str) -> None:
    """⟨P a, b⟩ = ⟨a, Pᵀ b⟩, where Pᵀ b = B H Πᵀ G H b."""
    made, n, d = part(10, 8, 20, projection), 80, 20
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(d, generator=draws, requires_grad=True), torch.randn(n, generator=draws)
    (back,) = torch.autograd.grad(made.project(a, n) @ b, a)
    torch.testing.assert_close(made.project(a, n) @ b, a @ back)
    if projection != "dense":
        wide = hadamard(torch.nn.functional.pad(b, (0, 128 - n))) * made.G
        turned = torch.zeros(128).index_put((made.order,), wide)
        torch.testing.assert_close(back, (hadamard(turned) * made.B)[:d])


@pytest.mark.parametrize("projection", ["dense", "fastfood"])
def test_lengths_stay(projection: str) -> None:
    made, n, d = part(100, 50, 200, projection), 5000, 200
    draws = torch.Generator().manual_seed(0)
    ratios = torch.stack([made.project(t, n).norm() / t.norm() for t in torch.randn(20, d, generator=draws)])
    assert abs(float(ratios.mean()) - 1) < 0.03 and float(ratios.std()) < 0.05
    P = matrix(made, n, d)
    assert (P.T @ P - torch.eye(d)).abs().max() < 0.15


@pytest.mark.parametrize("projection", ALL)
def test_equation(projection: str) -> None:
    plain, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "intrinsic_subspace", dimension=40, projection=projection, sites="q down norm")
    theta = adapter.parts["shared.0"].theta
    sites = select(examine(plain), "q down norm").sites
    assert len(theta) == (40 - len(sites) if projection == "said" else 40)
    for site in sites:
        made = adapter.parts[site.name]
        weight = plain.get_submodule(site.path).weight
        update = matrix(made, weight.numel(), len(theta)) @ theta
        weight.data += (update * (made.lam if projection == "said" else 1)).view(weight.shape).detach()
    batch = zoo.batch(plain)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=2e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=2e-5, rtol=1e-5)


def test_sites_and_seeds_have_projections_of_their_own() -> None:
    adapter = attach(zoo.tiny("llama"), IntrinsicSubspace(dimension=64))
    rows = torch.stack([p.project(torch.ones(50), 512) for k, p in adapter.parts.items() if k != "shared.0"])
    rows = rows / rows.norm(dim=1, keepdim=True)
    assert (rows @ rows.T - torch.eye(len(rows))).abs().max() < 0.3
    assert not torch.equal(part(10, 8, 20, "fastfood").G, part(10, 8, 20, "fastfood", seed=1).G)


def test_hashes_are_splitmix_and_gaussians_are_gaussian() -> None:
    state, mask = int.from_bytes(hashlib.blake2b(b"key", digest_size=8).digest(), "little"), 2**64 - 1
    want = []
    for _ in range(100):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        want.append((z ^ (z >> 31)) >> 11)
    assert hashes(100, "key", CPU).tolist() == want
    drawn = gaussian(20_000, "key", CPU)
    assert scipy.stats.kstest(drawn.numpy(), "norm").pvalue > 0.01
    assert abs(float(drawn[1:] @ drawn[:-1]) / 20_000) < 4 / math.sqrt(20_000)


def test_what_is_stored_is_the_dimension_alone(tmp_path: Path) -> None:
    tuned, other = zoo.tiny("llama"), zoo.tiny("llama")
    cases.grafted(tuned, "intrinsic_subspace", "mine", dimension=30)
    checkpoint.save(tuned, "mine", tmp_path / "adapter")
    torch.manual_seed(7)
    checkpoint.load(other, tmp_path / "adapter")
    batch = zoo.batch(tuned)
    torch.testing.assert_close(zoo.forward(other, batch), zoo.forward(tuned, batch), atol=0, rtol=0)


def test_impossible_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in ({"dimension": 0}, {"projection": "sparse"}, {"seed": -1}):
        with pytest.raises(BadInput, match=f"IntrinsicSubspace: {next(iter(settings))} must"):
            IntrinsicSubspace(**settings)
    with pytest.raises(BadInput, match="scale for each of 14 weights: choose at least 15"):
        attach(zoo.tiny("llama"), IntrinsicSubspace(dimension=14))
    monkeypatch.setattr("graft.methods.intrinsic_subspace.LARGEST", 10**5)
    with pytest.raises(Refused, match="Use projection=fastfood"):
        attach(zoo.tiny("llama"), IntrinsicSubspace(dimension=100, projection="dense"))
