"""HRA: counts by hand, reflections one by one, orthogonality, the penalty, starts, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.methods.hra import HRA
from methods.moments import moment
from methods.sizes import counts


def test_counts() -> None:
    found = counts("roberta-base", HRA(rank=8))
    assert found.trainable == 24 * 8 * 768
    assert found.rank == 8
    # all six linear maps
    assert counts("deberta-v3-base", HRA(rank=8, sites="q k v o up down")).trainable == 12 * 8 * (5 * 768 + 3072)


def chain(U: torch.Tensor) -> torch.Tensor:
    """H₁ ⋯ H_r, one reflection after another."""
    product = torch.eye(len(U))
    for u in U.T:
        product = product @ (torch.eye(len(U)) - 2 * torch.outer(u, u) / u.dot(u))
    return product


def orthogonal(U: torch.Tensor) -> torch.Tensor:
    """Gram-Schmidt, column by column."""
    found: list[torch.Tensor] = []
    for u in U.T:
        for other in found:
            u = u - other.dot(u) * other
        found.append(u / u.norm())
    return torch.stack(found, 1)


@pytest.mark.parametrize("gram_schmidt", [False, True])
def test_equation(gram_schmidt: bool) -> None:
    plain, tuned = zoo.tiny("gpt2"), zoo.tiny("gpt2")
    adapter = cases.grafted(tuned, "hra", rank=4, gram_schmidt=gram_schmidt, sites="q v down")
    for index, block in enumerate(plain.transformer.h):
        for role, linear, columns in (
            ("q", block.attn.c_attn, slice(0, 32)),
            ("v", block.attn.c_attn, slice(64, 96)),
            ("down", block.mlp.c_proj, slice(0, 32)),
        ):
            U = adapter.parts[f"decoder.{index}.{role}"].U.detach()
            H = chain(orthogonal(U) if gram_schmidt else U)
            torch.testing.assert_close(H @ H.T, torch.eye(len(H)), atol=1e-5, rtol=0)
            linear.weight.data[:, columns] = (linear.weight.data[:, columns].T @ H).T
    batch = zoo.batch(plain)
    want = zoo.forward(plain, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=2e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=2e-5, rtol=1e-5)


def test_gradients_are_those_of_the_reflections() -> None:
    model = zoo.tiny("llama")
    part = cases.grafted(model, "hra", rank=4).parts["decoder.0.q"]
    linear, x = model.model.layers[0].self_attn.q_proj, torch.randn(5, 32)
    ours = torch.autograd.grad(linear(x).square().sum(), part.U)
    theirs = torch.autograd.grad((x @ (linear.weight.detach() @ chain(part.U)).T).square().sum(), part.U)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_starts_in_pairs_that_cancel() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, HRA(rank=6))
    for part in adapter.parts.values():
        assert torch.equal(part.U[:, ::2], part.U[:, 1::2])
        assert torch.linalg.matrix_rank(part.U.detach()) == 3
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert all(part.U.grad.any() for part in adapter.parts.values())
    assert HRA().start == "near" and HRA(gram_schmidt=True, rank=3).start == "elsewhere"


def test_penalty_is_the_distance_from_orthogonal_directions() -> None:
    method = HRA(rank=4, penalty=0.5)
    adapter = attach(zoo.tiny("llama"), method)
    cases.move(adapter)
    parts = list(adapter.parts.values())
    units = [part.U.detach() / part.U.detach().norm(dim=0) for part in parts]
    want = 0.5 * sum((torch.eye(4) - U.T @ U).square().sum() for U in units)
    found = method.during("loss", moment(0), parts)
    torch.testing.assert_close(found.detach(), want)
    found.backward()
    assert all(part.U.grad.any() for part in parts)
    assert method.during("stepped", moment(0), parts) is None
    assert HRA(rank=4).during("loss", moment(0), parts) is None


def test_impossible_settings() -> None:
    with pytest.raises(BadInput, match="HRA: rank must be at least 1, got 0"):
        HRA(rank=0)
    with pytest.raises(BadInput, match=r"HRA: rank must be even, .* got 5\. Try 6"):
        HRA(rank=5)
    with pytest.raises(BadInput, match="HRA: penalty must be at least 0"):
        HRA(penalty=-1.0)
    with pytest.raises(BadInput, match="choose at most 16"):
        attach(zoo.tiny("llama"), HRA(rank=20))
    with pytest.raises(Refused, match="is an embedding"):
        attach(zoo.tiny("llama"), HRA(sites="embed"))
