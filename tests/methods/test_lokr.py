"""LoKr: counts by hand, the Kronecker product entry by entry, how sides are split, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import BadInput, Refused
from graft.methods.lokr import LoKr
from methods.sizes import counts


def test_counts() -> None:
    # 768 = 24·32 on both sides: C is 24 by 24, D is 32 by 32 and, at rank 8, 2·8·32
    found = counts("roberta-base", LoKr(rank=8))
    assert found.trainable == 24 * (24 * 24 + 2 * 8 * 32)
    assert found.rank == 24 * 8
    # half of 32 is not below the rank: D is full, and the update of full rank
    assert counts("roberta-base", LoKr(rank=16)).trainable == 24 * (24 * 24 + 32 * 32)
    assert counts("roberta-base", LoKr(rank=16)).rank == 768
    # a factor of 8: C is 8 by 8, D is 96 by 96 of rank 4
    assert counts("roberta-base", LoKr(rank=4, factor=8)).trainable == 24 * (64 + 2 * 4 * 96)
    both = LoKr(rank=2, factor=8, decompose_both=True)
    assert counts("roberta-base", both).trainable == 24 * (2 * 2 * 8 + 2 * 2 * 96)


@pytest.mark.parametrize(
    "settings",
    [{"rank": 2}, {"rank": 9}, {"rank": 1, "factor": 8}, {"rank": 1, "factor": 8, "decompose_both": True}],
    ids=str,
)
def test_equation(settings: dict[str, int]) -> None:
    plain, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = cases.grafted(tuned, "lokr", alpha=5.0, sites="q down", **settings)
    for placed in adapter.placed:
        part, weight = placed.part, plain.get_submodule(placed.site.path).weight.data
        tensors = {name: p.detach() for name, p in part.named_parameters()}
        C = tensors["C"] if "C" in tensors else tensors["C1"] @ tensors["C2"]
        D = tensors["D"] if "D" in tensors else tensors["B"] @ tensors["A"]
        for row in range(weight.shape[0]):
            for column in range(weight.shape[1]):
                (a, b), (i, j) = divmod(row, D.shape[0]), divmod(column, D.shape[1])
                weight[row, column] += 5.0 / settings["rank"] * C[a, i] * D[b, j]
    batch = zoo.batch(plain)
    want = zoo.forward(plain, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), want, atol=1e-5, rtol=1e-5)


def test_sides_are_split_as_near_to_the_root_as_they_can() -> None:
    for size, pair in ((32, (4, 8)), (48, (6, 8)), (64, (8, 8)), (127, (1, 127)), (11008, (86, 128))):
        assert LoKr()._split(size, "here") == pair
    assert LoKr(factor=16)._split(32, "here") == (16, 2)
    assert LoKr(factor=5, variant="hf")._split(32, "here") == (4, 8)
    assert LoKr(factor=5, variant="hf")._split(12, "here") == (3, 4)


def test_starts_with_a_zero() -> None:
    for settings, zero in (({"rank": 2}, "A"), ({"rank": 9}, "D")):
        model = zoo.tiny("llama")
        adapter = attach(model, LoKr(**settings))
        zoo.forward(model, zoo.batch(model)).square().mean().backward()
        for part in adapter.parts.values():
            for name, parameter in part.named_parameters():
                assert bool(parameter.any()) == (name != zero)
                assert bool(parameter.grad.any()) == (name == zero)


def test_impossible_settings() -> None:
    for settings in ({"rank": 0}, {"alpha": 0.0}, {"factor": -1}):
        with pytest.raises(BadInput, match=f"LoKr: {next(iter(settings))} must"):
            LoKr(**settings)
    with pytest.raises(BadInput, match=r"factor 5 does not divide 32, a side of decoder\.0\.q\. Try 0"):
        attach(zoo.tiny("llama"), LoKr(factor=5))
    with pytest.raises(Refused, match="is an embedding"):
        attach(zoo.tiny("llama"), LoKr(sites="embed"))


def test_rank_stabilized() -> None:
    for alpha, rslora in ((16.0, True), (32.0, False)):
        adapter = attach(zoo.tiny("llama"), LoKr(rank=4, alpha=alpha, rslora=rslora))
        assert {part.scale for part in adapter.parts.values()} == {8.0}
