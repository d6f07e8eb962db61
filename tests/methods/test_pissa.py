"""PiSSA: counts, the equation on the paper's residual base, the start, the conversion to a LoRA, refusals."""

from pathlib import Path

import pytest
import torch

import cases
import zoo
from graft import checkpoint
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.method import find
from graft.methods.pissa import PiSSA
from methods.sizes import counts


@pytest.mark.parametrize(
    ("model", "rank", "trainable"),
    [("roberta-base", 8, 294_912), ("roberta-large", 8, 786_432), ("llama-7b", 8, 4_194_304), ("gpt2", 4, 147_456)],
)
def test_counts_are_those_of_a_lora(model: str, rank: int, trainable: int) -> None:
    found = counts(model, PiSSA(rank=rank))
    assert (found.trainable, found.rank) == (trainable, 2 * rank)
    assert found.stored == 4 * (2 * trainable + found.head)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_equation_on_the_residual_base(name: str) -> None:
    """A and B trained on W − s·B₀A₀, as in the paper, where GPT-2 keeps the transposed q, k and v in one."""
    plain, tuned = zoo.tiny(name), zoo.tiny(name)
    s, r = 6.0 / 4, 4
    adapter = cases.grafted(tuned, "pissa", rank=r, alpha=6.0)
    for index in range(2):
        for place, role in ((0, "q"), (2, "v")):
            part = adapter.parts[f"decoder.{index}.{role}"]
            if name == "gpt2":
                W = plain.transformer.h[index].attn.c_attn.weight.data[:, 32 * place : 32 * (place + 1)].T
            else:
                attention = plain.model.layers[index].self_attn
                W = (attention.q_proj if role == "q" else attention.v_proj).weight.data
            U, S, Vt = torch.linalg.svd(W, full_matrices=False)
            B0, A0 = U[:, :r] * (S[:r] / s).sqrt(), (S[:r] / s).sqrt()[:, None] * Vt[:r]
            torch.testing.assert_close(part.B0 @ part.A0, B0 @ A0, atol=1e-5, rtol=1e-4)
            residual = W - s * B0 @ A0
            assert torch.linalg.matrix_norm(residual, 2) <= S[r] + 1e-4
            W.copy_(residual + s * ((part.B0 + part.dB) @ (part.A0 + part.dA)).detach())
    batch = zoo.batch(plain)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=2e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=2e-5, rtol=1e-5)


def test_starts_as_the_base_to_the_bit_and_both_factors_learn_at_once() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, PiSSA(rank=3))
    assert torch.equal(zoo.forward(model, batch), base)
    zoo.forward(model, batch).square().mean().backward()
    assert all(part.dA.grad.any() and part.dB.grad.any() for part in adapter.parts.values())


def test_the_randomized_decomposition_leaves_as_little_as_the_exact_one() -> None:
    model = zoo.tiny("llama")
    part = attach(model, PiSSA(rank=4, iterations=16, sites="q")).parts["decoder.0.q"]
    W = model.model.layers[0].self_attn.q_proj.weight.detach()
    least = torch.linalg.svdvals(W)[4:].square().sum().sqrt()
    left = (W - part.scale * part.B0 @ part.A0).norm()
    assert least <= left + 1e-5 and left < 1.005 * least


def test_small_steps_survive_half_precision() -> None:
    part = attach(zoo.tiny("llama"), PiSSA(rank=4, sites="q")).parts["decoder.0.q"]
    part.dB.data.fill_(1e-4)
    A, B = part.pair()
    ours = B.bfloat16() @ A.bfloat16()
    paper = (part.B0 + part.dB).bfloat16() @ part.A0.bfloat16() - part.B0.bfloat16() @ part.A0.bfloat16()
    want = part.dB @ part.A0
    assert (ours.float() - want).norm() < 0.02 * want.norm() and (paper.float() - want).norm() > want.norm()


def test_half_precision_is_decomposed_in_single() -> None:
    model = zoo.tiny("llama").bfloat16()
    part = attach(model, PiSSA(rank=4, sites="q")).parts["decoder.0.q"]
    W = model.model.layers[0].self_attn.q_proj.weight.float()
    U, S, Vt = torch.linalg.svd(W)
    torch.testing.assert_close(part.scale * part.B0 @ part.A0, U[:, :4] * S[:4] @ Vt[:4], atol=1e-5, rtol=1e-4)


def test_an_integer_weight_is_refused() -> None:
    model = zoo.tiny("llama")
    linear = model.model.layers[1].self_attn.v_proj
    linear.weight = torch.nn.Parameter(linear.weight.detach().mul(50).to(torch.int8), requires_grad=False)
    with pytest.raises(Refused, match=r"the weight at decoder\.1\.v is quantized"):
        attach(model, PiSSA(rank=4))


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("sites", ["q v", "embed"])
def test_is_stored_as_an_ordinary_lora_of_twice_the_rank(sites: str, rslora: bool, tmp_path: Path) -> None:
    tuned, other = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "pissa", "mine", rank=3, alpha=5.0, rslora=rslora, sites=sites)
    for key, part in adapter.deployed().items():
        ours = adapter.parts[key]
        assert ours.scale == pytest.approx(5 / 3**0.5 if rslora else 5 / 3)
        B, A = ours.B0 + ours.dB, ours.A0 + ours.dA
        torch.testing.assert_close(part.B @ part.A, B @ A - ours.B0 @ ours.A0, atol=1e-5, rtol=1e-5)
        both = torch.cat((B, -ours.B0), 1) @ torch.cat((A, ours.A0))  # the conversion as the paper writes it
        torch.testing.assert_close(part.B @ part.A, both, atol=1e-5, rtol=1e-5)
    checkpoint.save(tuned, "mine", tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").exists()  # and so for Hugging Face PEFT
    loaded = checkpoint.load(other, tmp_path / "adapter")
    assert loaded.method == find("lora")(rank=6, alpha=5 * 2**0.5 if rslora else 10.0, rslora=rslora, sites=sites)
    batch = zoo.batch(tuned)
    torch.testing.assert_close(zoo.forward(other, batch), zoo.forward(tuned, batch), atol=1e-5, rtol=1e-5)


def test_impossible_settings() -> None:
    for settings in ({"rank": 0}, {"alpha": 0.0}, {"alpha": -1.0}, {"iterations": -1}):
        with pytest.raises(BadInput, match=f"PiSSA: {next(iter(settings))} must"):
            PiSSA(**settings)
    with pytest.raises(BadInput, match="choose at most 16"):
        attach(zoo.tiny("llama"), PiSSA(rank=20))
    with pytest.raises(BadInput, match=r"rank 9 at decoder\.0\.v, a 16 by 32 matrix: .*choose at most 8"):
        attach(zoo.tiny("llama"), PiSSA(rank=9))
    with pytest.raises(Refused, match="the weight there is a vector"):
        attach(zoo.tiny("llama"), PiSSA(rank=2, sites="norm"))
