"""OFT: counts by hand, rotations built entry by entry, what a rotation keeps, the series, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.methods.oft import OFT
from methods.sizes import counts


def test_counts() -> None:
    assert counts("roberta-base", OFT(block=32)).trainable == 24 * 24 * (32 * 31 // 2)
    assert counts("roberta-base", OFT(block=32, share=True)).trainable == 24 * (32 * 31 // 2)
    assert counts("roberta-base", OFT(block=16, sites="q down")).trainable == 12 * (48 + 192) * 120
    assert counts("roberta-base", OFT(block=768)).rank == 768


def skew(values: torch.Tensor, size: int) -> torch.Tensor:
    Q, rest = torch.zeros(size, size), iter(values.tolist())
    for i in range(size):
        for j in range(i + 1, size):
            Q[i, j] = next(rest)
            Q[j, i] = -Q[i, j]
    return Q


def rotation(part: torch.nn.Module, inputs: int, terms: int | None = None) -> torch.Tensor:
    """R of the paper for a whole input."""
    blocks = []
    for values in part.Q.detach():
        Q, identity = skew(values, part.block), torch.eye(part.block)
        if terms is None:
            blocks.append((identity + Q) @ torch.linalg.inv(identity - Q))
        else:
            powers = [torch.linalg.matrix_power(Q, n) for n in range(terms)]
            blocks.append(identity + 2 * sum(powers[1:-1]) + powers[-1])
    return torch.block_diag(*(blocks * (inputs // part.block // len(blocks))))


@pytest.mark.parametrize(
    "settings", [{}, {"share": True}, {"variant": "neumann", "terms": 5}, {"variant": "neumann", "terms": 3}], ids=str
)
def test_equation(settings: dict) -> None:
    plain, tuned = zoo.tiny("gpt2"), zoo.tiny("gpt2")
    adapter = cases.grafted(tuned, "oft", block=8, sites="q v down", **settings)
    for index, block in enumerate(plain.transformer.h):
        for role, linear, columns in (
            ("q", block.attn.c_attn, slice(0, 32)),
            ("v", block.attn.c_attn, slice(64, 96)),
            ("down", block.mlp.c_proj, slice(0, 32)),
        ):
            weight = linear.weight.data[:, columns].T  # (out, in)
            R = rotation(adapter.parts[f"decoder.{index}.{role}"], weight.shape[1], settings.get("terms"))
            linear.weight.data[:, columns] = (weight @ R.T).T
    batch = zoo.batch(plain)
    want = zoo.forward(plain, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=2e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=2e-5, rtol=1e-5)


def test_lengths_and_angles_of_neurons_stay() -> None:
    model = zoo.tiny("llama")
    before = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    cases.grafted(model, "oft", block=16)
    merge(model)
    after = model.model.layers[0].self_attn.q_proj.weight.detach()
    assert float((after - before).abs().max()) > 0.1
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-5, rtol=1e-5)


def test_the_series_is_near_the_rotation_where_Q_is_small() -> None:
    adapter = attach(zoo.tiny("llama"), OFT(block=8))
    cases.move(adapter, by=0.02)
    part = adapter.parts["decoder.0.q"]
    exact = part.rotations()
    distances = []
    for terms in (3, 5, 7):
        part.terms = terms
        distances.append(float((part.rotations() - exact).detach().norm()))
    assert distances == sorted(distances, reverse=True) and distances[-1] < 1e-5 < distances[0]


def test_starts_as_the_identity_and_learns() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, OFT(block=8))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert all(not part.Q.any() and part.Q.grad.any() for part in adapter.parts.values())


def test_impossible_settings() -> None:
    with pytest.raises(BadInput, match="OFT: block must be at least 2"):
        OFT(block=1)
    with pytest.raises(BadInput, match="OFT: terms must be at least 2"):
        OFT(variant="neumann", terms=1)
    with pytest.raises(BadInput, match=r"block 12 does not divide 32, the input of decoder\.0\.q\. Try (8|16)"):
        attach(zoo.tiny("llama"), OFT(block=12))
    with pytest.raises(Refused, match="is an embedding"):
        attach(zoo.tiny("llama"), OFT(block=8, sites="embed"))
