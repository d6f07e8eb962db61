"""DoRA: published counts, the formula by hand, the constant norm in backward, starts, refusals."""

import pytest
import torch
import torch.nn.functional as F

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput
from graft.methods.dora import DoRA
from methods.sizes import counts


def test_counts_are_the_published_ones() -> None:
    found = counts("llama-7b", DoRA(rank=32, sites="q k v up down"))
    assert found.trainable == 56_975_360
    assert round(100 * found.trainable / (found.total + found.trainable), 2) == 0.84  # DoRA paper
    assert found.rank == 4096


def test_counts_are_loras_and_one_number_for_each_row() -> None:
    assert counts("roberta-base", DoRA(rank=8)).trainable == 294_912 + 24 * 768


def recomposed(weight: torch.Tensor, part: torch.nn.Module, scale: float) -> torch.Tensor:
    """W′ of the paper, one norm for each output row of a (out, in) weight."""
    direction = weight + scale * part.B.detach() @ part.A.detach()
    norms = torch.stack([row.norm() for row in direction])
    return part.m.detach()[:, None] * direction / norms[:, None]


@pytest.mark.parametrize(("rslora", "scale"), [(False, 1.5), (True, 3.0)])
def test_weight_by_hand(rslora: bool, scale: float) -> None:
    base, tuned = zoo.tiny("qwen2"), zoo.tiny("qwen2")  # q and v have biases, which DoRA leaves alone
    adapter = cases.grafted(tuned, "dora", rank=4, alpha=6.0, rslora=rslora)
    for index, layer in enumerate(base.model.layers):
        for role, linear in (("q", layer.self_attn.q_proj), ("v", layer.self_attn.v_proj)):
            linear.weight.data = recomposed(linear.weight.data, adapter.parts[f"decoder.{index}.{role}"], scale)
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-5, rtol=1e-5)


def test_transposed_and_fused_weight_by_hand() -> None:
    """GPT-2 stores (in, out): the norm is still one for each output."""
    base, tuned = zoo.tiny("gpt2"), zoo.tiny("gpt2")
    adapter = cases.grafted(tuned, "dora", rank=4, alpha=4.0)
    for index, block in enumerate(base.transformer.h):
        for place, role in ((0, "q"), (2, "v")):
            part, columns = adapter.parts[f"decoder.{index}.{role}"], slice(32 * place, 32 * (place + 1))
            weight = block.attn.c_attn.weight.data
            weight[:, columns] = recomposed(weight[:, columns].T, part, 1.0).T
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-5, rtol=1e-5)


def test_norm_is_a_constant_in_backward() -> None:
    """Gradients of a loss on one layer's output, against autograd through the written-out formula."""
    model = zoo.tiny("qwen2")
    adapter = cases.grafted(model, "dora", rank=3, alpha=6.0)
    part, linear = adapter.parts["decoder.0.q"], model.model.layers[0].self_attn.q_proj
    x = torch.randn(5, 32)
    ours = torch.autograd.grad(linear(x).square().sum(), (part.A, part.B, part.m))
    direction = linear.weight.detach() + 2.0 * part.B @ part.A
    weight = part.m[:, None] * direction / direction.norm(dim=1, keepdim=True).detach()
    theirs = torch.autograd.grad(F.linear(x, weight, linear.bias).square().sum(), (part.A, part.B, part.m))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_starts_with_the_norms_of_the_rows() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, DoRA(rank=2))
    for index, layer in enumerate(model.model.layers):
        part = adapter.parts[f"decoder.{index}.q"]
        assert not part.B.any()
        torch.testing.assert_close(part.m.detach(), layer.self_attn.q_proj.weight.norm(dim=1).detach())


def test_first_gradients() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, DoRA(rank=2))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    for part in adapter.parts.values():
        assert not part.A.grad.any() and part.B.grad.any() and part.m.grad.any()


def test_dropout_spares_the_base_product() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, DoRA(rank=2, dropout=0.5))
    model.train()
    torch.testing.assert_close(zoo.forward(model, batch), base, atol=1e-5, rtol=1e-5)
    cases.move(adapter)
    assert not torch.equal(zoo.forward(model, batch), zoo.forward(model, batch))


def test_merges() -> None:
    base, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "dora", rank=4, alpha=8.0)
    part = adapter.parts["decoder.1.q"]
    merge(tuned)
    expected = recomposed(base.model.layers[1].self_attn.q_proj.weight.data, part, 2.0)
    torch.testing.assert_close(tuned.model.layers[1].self_attn.q_proj.weight.data, expected)


def test_impossible_settings() -> None:
    with pytest.raises(BadInput, match="DoRA: rank must be at least 1, got 0"):
        DoRA(rank=0)
    with pytest.raises(BadInput, match="DoRA: dropout must be"):
        DoRA(dropout=1.0)
    with pytest.raises(BadInput, match="choose at most 16"):
        attach(zoo.tiny("llama"), DoRA(rank=20))
