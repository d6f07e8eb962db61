"""LN-tuning: counts by hand, the same function as norms changed in place, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, merge
from graft.errors import Refused
from graft.methods.ln_tuning import LNTuning
from methods.sizes import counts


@pytest.mark.parametrize(
    ("model", "trainable"),
    [
        ("roberta-base", (1 + 2 * 12) * 2 * 768),  # the embedding's, and two to a block
        ("gpt2", (2 * 12 + 1) * 2 * 768),  # the final one
        ("llama-7b", (2 * 32 + 1) * 4096),  # no biases
        ("t5-base", (2 * 12 + 1 + 3 * 12 + 1) * 768),  # cross-attention has one too
    ],
)
def test_counts(model: str, trainable: int) -> None:
    found = counts(model, LNTuning())
    assert found.trainable == found.changed == trainable
    assert found.rank == 0


def test_blocks_alone() -> None:
    assert counts("roberta-base", LNTuning(sites="norm @ 0-11")).trainable == 24 * 2 * 768


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_equation(name: str) -> None:
    plain, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "ln_tuning")
    for placed in adapter.placed:
        norm = plain.get_submodule(placed.site.path)
        for parameter, value in placed.part.named_parameters():
            getattr(norm, parameter).data = value.detach().clone()
    batch = zoo.batch(plain)
    want = zoo.forward(plain, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), want)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), want)


def test_starts_with_the_base_s_own_and_leaves_them_alone() -> None:
    model = zoo.tiny("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = cases.grafted(model, "ln_tuning")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    fresh = attach(zoo.tiny("bert"), LNTuning())
    for placed in fresh.placed:
        assert torch.equal(placed.part.weight, placed.site.weight)
    assert adapter.coverage == {"norm": 5}


def test_what_is_no_norm_is_refused() -> None:
    with pytest.raises(Refused, match=r"cannot act at decoder\.0\.q: it is no norm"):
        attach(zoo.tiny("llama"), LNTuning(sites="q"))
