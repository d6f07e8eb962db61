"""The second-order mask: counts, the choice by brute force on the quadratic model, curvatures, refusals."""

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.second_order_mask import SecondOrderMask
from methods.sizes import counts


def labelled(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    batch = zoo.batch(model, seed=seed)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def chosen(method: SecondOrderMask, batches: list[dict[str, Tensor]]) -> tuple[nn.Module, list[Any]]:
    model = zoo.tiny("llama")
    parts = list(attach(model, method).parts.values())
    torch.manual_seed(0)
    method.prepare(model, batches, parts)
    return model, parts


def places(scores: list[Tensor], density: float, together: bool) -> list[list[int]]:
    """Of the largest scores by sorting, of each matrix or of all together."""
    flat = [score.flatten() for score in scores]
    counts = [round(density * len(score)) for score in flat]
    common = torch.cat(flat).sort(descending=True).values[sum(counts) - 1]
    least = [
        common if together else score.sort(descending=True).values[n - 1] for score, n in zip(flat, counts, strict=True)
    ]
    return [(score >= own).nonzero().flatten().tolist() for score, own in zip(flat, least, strict=True)]


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
@pytest.mark.parametrize("score", ["gradient", "fisher", "hutchinson"])
def test_chosen_are_the_largest_scores_by_hand(score: str, together: bool) -> None:
    plain = zoo.tiny("llama")
    batches = [labelled(plain, seed) for seed in (0, 1, 2)]
    method = SecondOrderMask(0.02, score, together, batches=2, probes=3, sites="q down")
    model, parts = chosen(method, batches)
    assert all(p.grad is None for p in model.parameters())
    weights = [plain.get_parameter(f"{part.site.path}.weight") for part in parts]
    g, F, h = ([torch.zeros_like(W) for W in weights] for _ in range(3))
    torch.manual_seed(0)
    for batch in batches[:2]:
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            slopes = torch.autograd.grad(plain(**batch).loss, weights, create_graph=True)
        for k, slope in enumerate(slopes):
            g[k] += slope.detach()
            F[k] += slope.detach() ** 2
        for _ in range(3 if score == "hutchinson" else 0):
            z = [torch.randint_like(slope, 2) * 2 - 1 for slope in slopes]
            along = sum((slope * signs).sum() for slope, signs in zip(slopes, z, strict=True))
            for k, bent in enumerate(torch.autograd.grad(along, weights, retain_graph=True)):
                h[k] += z[k] * bent
    damped = [each.abs().maximum(each.abs().mean()) for each in h]
    wanted = {
        "gradient": [each**2 for each in g],
        "fisher": F,
        "hutchinson": [each**2 / size for each, size in zip(g, damped, strict=True)],
    }
    found = {name: places(scores, 0.02, together) for name, scores in wanted.items() if name in ("gradient", score)}
    at = [set(part.at.tolist()) for part in parts]
    missed = sum(len(set(own) - mine) for own, mine in zip(found[score], at, strict=True))
    assert missed <= 2  # those that rounding puts before or behind the last one
    assert sum(map(len, at)) == sum(round(0.02 * W.numel()) for W in weights)
    if score != "gradient":
        assert sum(len(set(own) - mine) for own, mine in zip(found["gradient"], at, strict=True)) > 10


def test_hutchinson_estimates_the_diagonal_of_the_hessian() -> None:
    model = zoo.tiny("llama")
    method = SecondOrderMask(sites="q @ 0", score="hutchinson", probes=400)
    (part,) = attach(model, method).parts.values()
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


def test_impossible_settings() -> None:
    for settings in ({"density": 2.0}, {"batches": 0}, {"probes": 0}):
        with pytest.raises(BadInput, match=f"SecondOrderMask: {next(iter(settings))} must"):
            SecondOrderMask(**settings)
