"""Compacter++: published counts, the same function as Compacter at the feed-forward network, refusals."""

import pytest
import torch

import cases
import zoo
from graft.errors import BadInput
from graft.method import named
from graft.methods.compacter_plus_plus import CompacterPlusPlus
from methods.sizes import TOTAL_T5, counts

PUBLISHED = [
    ("roberta-base", CompacterPlusPlus(train_layernorm=False), 28_576),  # AdapterHub
    ("roberta-large", CompacterPlusPlus(train_layernorm=False), 76_096),  # AdapterHub
    # 104,704 is printed, 0.047 %: it has T5's two final norms too, which belong to no block. Cross-attention has one
    # norm of its own in each decoder block, so 60 of the 62 remain.
    ("t5-base", CompacterPlusPlus(), 104_704),
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: CompacterPlusPlus, trainable: int) -> None:
    assert counts(model, method).trainable == trainable
    assert model != "t5-base" or round(100 * trainable / TOTAL_T5, 3) == 0.047


def test_is_compacter_after_the_feed_forward_network() -> None:
    ours, theirs = zoo.tiny("t5"), zoo.tiny("t5")
    adapter, other = cases.grafted(ours, "compacter_plus_plus"), cases.grafted(theirs, "compacter", sites="ffn")
    assert adapter.parts.keys() == other.parts.keys() and adapter.coverage["ffn"] == 4
    for key, part in adapter.parts.items():
        other.parts[key].load_state_dict(part.state_dict())
    batch = zoo.batch(ours)
    assert torch.equal(zoo.forward(ours, batch), zoo.forward(theirs, batch))


def test_is_found_by_name_alone_and_in_a_sum() -> None:
    assert named("compacter_plus_plus") == CompacterPlusPlus()
    assert [type(term).__name__ for term in named("compacter_plus_plus+lora").methods()] == ["Compacter", "LoRA"]


def test_refusals() -> None:
    with pytest.raises(BadInput, match="k must be at least 1"):
        CompacterPlusPlus(k=0)
