"""Child-Tuning: counts of both variants, the random child by its mean, the chosen child by hand, decay, refusals."""

import pytest
import torch
from torch import Tensor, nn

import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.method import StandIn
from graft.methods.child_tuning import ChildTuning
from methods.moments import moment
from methods.sizes import counts


def labelled(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    batch = zoo.batch(model, seed=seed)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def test_counts() -> None:
    square, wide = round(0.3 * 768 * 768), round(0.3 * 768 * 3072)
    chosen, free = counts("roberta-base", ChildTuning("D")), counts("roberta-base", ChildTuning("F"))
    assert chosen.trainable == chosen.changed == 12 * (4 * square + 2 * wide)
    assert free.trainable == free.changed == 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert chosen.stored == 8 * chosen.trainable + 4 * chosen.head


def test_f_masks_gradients_and_keeps_their_mean() -> None:
    model = zoo.tiny("llama")
    method = ChildTuning("F", density=0.25, sites="q")
    adapter = attach(model, method, head=True)
    parts = list(adapter.parts.values())
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    own = [part.weight for part in parts[:-1]]
    head = parts[-1].weight
    before, whole = [p.grad.clone() for p in own], head.grad.clone()
    torch.manual_seed(0)
    total = [torch.zeros_like(grad) for grad in before]
    for step in range(400):
        for parameter, grad in zip(own, before, strict=True):
            parameter.grad.copy_(grad)
        assert method.during("gradients", moment(step), parts) is None
        for summed, parameter, grad in zip(total, own, before, strict=True):
            kept = parameter.grad != 0
            torch.testing.assert_close(parameter.grad[kept], grad[kept] / 0.25)
            summed += kept
    assert isinstance(parts[-1], StandIn) and torch.equal(head.grad, whole)  # the head trains as ever
    shares = torch.cat([(summed / 400)[grad != 0] for summed, grad in zip(total, before, strict=True)])
    assert abs(float(shares.mean()) - 0.25) < 0.005 and float(shares.min()) > 0.1
    method.during("stepped", moment(0), parts)
    assert ChildTuning("D").during("gradients", moment(0), parts) is None


def test_d_is_the_child_of_squared_clipped_batch_gradients() -> None:
    plain, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    batches = [labelled(plain, seed) for seed in (0, 1)]
    method = ChildTuning("D", density=0.1, clip=1.0, sites="q down")
    parts = list(attach(tuned, method).parts.values())
    method.prepare(tuned, batches, parts)
    weights = [plain.get_parameter(f"{part.site.path}.weight") for part in parts]
    fisher = [torch.zeros_like(weight) for weight in weights]
    norms = []
    for batch in batches:
        grads = torch.autograd.grad(plain(**batch).loss, weights)
        norms += [float(grad.norm()) for grad in grads]
        for score, grad, norm in zip(fisher, grads, norms[-len(grads) :], strict=True):
            score += (grad * min(1, 1 / norm)) ** 2
    assert max(norms) > 1 > min(norms)  # or clipping would be untested
    count = sum(len(part.at) for part in parts)
    assert count == sum(round(0.1 * score.numel()) for score in fisher)
    threshold = torch.cat([score.flatten() for score in fisher]).sort(descending=True).values[count - 1]
    for part, score in zip(parts, fisher, strict=True):
        expected = (score.flatten() >= threshold * (1 + 1e-4)).nonzero().flatten().tolist()
        assert set(expected) <= set(part.at.tolist()) and len(part.at) - len(expected) <= 2


def test_impossible_settings() -> None:
    for settings in ({"density": 0.0}, {"clip": 0.0}):
        with pytest.raises(BadInput, match=f"ChildTuning: {next(iter(settings))} must"):
            ChildTuning(**settings)
    with pytest.raises(BadInput, match="variant must be 'F' or 'D'"):
        ChildTuning("G")
