"""The second-order mask: counts, the choice by brute force on the quadratic model, curvatures, refusals."""

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.second_order_mask import SecondOrderMask
from graft.sparse import Sparse
from methods.sizes import counts


def labelled(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    batch = zoo.batch(model, seed=seed)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def chosen(method: SecondOrderMask, batches: list[dict[str, Tensor]]) -> tuple[nn.Module, list[Sparse]]:
    model = zoo.tiny("llama")
    attach(model, method)
    method.prepare(model, batches)
    return model, Sparse.of(model, method)


def test_counts() -> None:
    square, wide = round(0.005 * 768 * 768), round(0.005 * 768 * 3072)
    found = counts("roberta-base", SecondOrderMask())
    assert found.trainable == found.changed == 12 * (4 * square + 2 * wide)
    assert found.stored == 8 * found.trainable + 4 * found.head


def test_largest_score_is_the_best_subset_of_the_quadratic_model() -> None:
    draws = torch.Generator().manual_seed(0)
    g, h = torch.randn(8, generator=draws), torch.rand(8, generator=draws) + 0.1
    # The minimum over Δ of gᵀMΔ + ½ (MΔ)ᵀ H (MΔ), for every mask of three entries.
    best = min(combinations(range(8), 3), key=lambda kept: sum(float(-(g[k] ** 2) / (2 * h[k])) for k in kept))
    assert set(best) == set((g.square() / h).topk(3).indices.tolist())


@pytest.mark.parametrize("together", [False, True])
def test_gradient_is_that_of_all_batches(together: bool) -> None:
    plain = zoo.tiny("llama")
    batches = [labelled(plain, seed) for seed in (0, 1, 2)]
    model, parts = chosen(SecondOrderMask(density=0.02, sites="q down", together=together, batches=2), batches)
    for batch in batches[:2]:  # signed gradients add up in .grad
        plain(**batch).loss.backward()
    scores = [plain.get_parameter(f"{part.site.path}.weight").grad.square().flatten() for part in parts]
    total = sum(len(part.at) for part in parts)
    assert total == sum(round(0.02 * score.numel()) for score in scores)
    threshold = torch.cat(scores).sort(descending=True).values[total - 1]
    for part, score in zip(parts, scores, strict=True):
        own = threshold if together else score.sort(descending=True).values[round(0.02 * len(score)) - 1]
        assert part.at.tolist() == (score >= own).nonzero().flatten().tolist()
    assert all(p.grad is None for p in model.parameters())


def test_fisher_curvature() -> None:
    plain = zoo.tiny("llama")
    batches = [labelled(plain, seed) for seed in (0, 1)]
    _, parts = chosen(SecondOrderMask(density=0.02, sites="q", score="fisher"), batches)
    for part in parts:
        weight = plain.get_parameter(f"{part.site.path}.weight")
        each = torch.stack([torch.autograd.grad(plain(**batch).loss, weight)[0] for batch in batches])
        score = (each.sum(0) ** 2 / each.square().sum(0)).flatten()
        threshold = score.sort(descending=True).values[len(part.at) - 1]
        assert float(score[part.at.long()].min()) >= float(threshold) * (1 - 1e-4)


def test_hutchinson_estimates_the_diagonal_of_the_hessian() -> None:
    model = zoo.tiny("llama")
    method = SecondOrderMask(sites="q @ 0", score="hutchinson", probes=400)
    attach(model, method)
    (part,) = Sparse.of(model, method)
    weight, batch = part.site.module.weight, labelled(model)
    from graft.anatomy.gradients import derivatives, differentiable

    torch.manual_seed(0)
    with differentiable(model, [part.site], training=True):
        gradients = derivatives(model(**batch).loss, [part.site], twice=True)
        (estimate,) = method._curvature(gradients, [part.site])
        flat = gradients[0].flatten()
        exact = torch.stack(
            [torch.autograd.grad(entry, weight, retain_graph=True)[0].flatten()[k] for k, entry in enumerate(flat[:64])]
        )
    assert torch.corrcoef(torch.stack((estimate.flatten()[:64], exact)))[0, 1] > 0.8
    method.prepare(model, [batch])
    assert len(part.at) == len(set(part.at.tolist()))


def test_impossible_settings() -> None:
    for settings in ({"density": 2.0}, {"batches": 0}, {"probes": 0}):
        with pytest.raises(BadInput, match=f"SecondOrderMask: {next(iter(settings))} must"):
            SecondOrderMask(**settings)
