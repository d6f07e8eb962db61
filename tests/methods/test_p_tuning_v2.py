"""P-tuning v2: published counts, the same function as a flat prefix, its start, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput, NotApplied
from graft.methods.p_tuning_v2 import PTuningV2
from methods.sizes import counts

PUBLISHED = [
    ("roberta-large", PTuningV2(128), 6_291_456),
    ("roberta-base", PTuningV2(20), 960_770 - 592_130),
    ("gpt2-medium", PTuningV2(5), 245_760),
    ("llama2-70b", PTuningV2(10), 2 * 10 * 80 * 8 * 128),  # by key heads
    ("t5-base", PTuningV2(4), 3 * 2 * 4 * 12 * 768),  # encoder, decoder and cross-attention
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: PTuningV2, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_is_a_flat_prefix(name: str) -> None:
    ours, theirs = zoo.tiny(name), zoo.tiny(name)
    adapter, prefix = cases.grafted(ours, "p_tuning_v2"), cases.grafted(theirs, "prefix_tuning")
    for key, part in adapter.parts.items():
        prefix.parts[key].load_state_dict(part.state_dict())
    batch = zoo.batch(ours)
    assert torch.equal(zoo.forward(ours, batch), zoo.forward(theirs, batch))


def test_starts_small() -> None:
    for parameter in attach(zoo.tiny("llama"), PTuningV2(60)).parameters():
        assert abs(float(parameter.detach().std()) / 0.02 - 1) < 0.05


def test_refusals() -> None:
    with pytest.raises(BadInput, match="PTuningV2: tokens must be at least 1"):
        PTuningV2(0)
    with pytest.raises(NotApplied, match="attention interface"):
        attach(zoo.tiny("deberta_v2"), PTuningV2(3))
