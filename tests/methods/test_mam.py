"""Mix-and-match: published counts where print and arithmetic agree, and that it is the sum it says."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.mam import MAM
from graft.methods.parallel_adapter import ParallelAdapter
from graft.methods.prefix_tuning import PrefixTuning
from methods.sizes import counts


@pytest.mark.parametrize(
    ("model", "method", "trainable"),
    [
        ("roberta-base", MAM(tokens=30, hidden=800, bottleneck=384), 22_493_984),  # AdapterHub, mam
        # The authors' code allocates 46,783,200 and 122,244,192; this is what its forward uses.
        ("roberta-base", MAM(tokens=16, hidden=800, bottleneck=16), 15_695_840),
        ("roberta-large", MAM(tokens=16, hidden=800, bottleneck=16), 41_018_528),
    ],
)
def test_counts_are_the_published_ones(model: str, method: MAM, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def test_code_t5_row_is_a_sum_with_flat_prefixes_on_self_attention() -> None:
    method = PrefixTuning(16, sites="self: attention") + ParallelAdapter(15)
    assert counts("codet5-base", method).trainable == 1_161_576


def test_is_the_sum_of_its_two() -> None:
    model, other = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = attach(model, MAM(tokens=3, hidden=6, bottleneck=4))
    same = attach(other, PrefixTuning(3, reparameterize=True, hidden=6) + ParallelAdapter(4))
    cases.move(adapter)
    for ours, theirs in zip(adapter.parameters(), same.parameters(), strict=True):
        theirs.data = ours.data.clone()
    batch = zoo.batch(model)
    torch.testing.assert_close(zoo.forward(model, batch), zoo.forward(other, batch), atol=1e-6, rtol=1e-6)


def test_deployed_form_drops_the_network_alone() -> None:
    adapter = attach(zoo.tiny("llama"), MAM(tokens=3, hidden=6, bottleneck=4))
    names = {name for part in adapter.deployed().values() for name in part.state_dict()}
    assert names == {"keys", "values", "down", "down_bias", "up", "up_bias"}
    assert not adapter.method.serving().reparameterize


def test_impossible_settings() -> None:
    for name in ("tokens", "hidden", "bottleneck"):
        with pytest.raises(BadInput, match=f"MAM: {name} must be at least 1"):
            MAM(**{name: 0})
