"""The last k blocks: published counts, what trains and what does not, full fine-tuning, head only, refusals."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, detach, use
from graft.errors import BadInput, NotApplied, Refused
from graft.methods.lora import LoRA
from graft.methods.top_layers import TopLayers
from methods.sizes import counts

PUBLISHED = [
    ("gpt2-medium", TopLayers(2), 25_192_448, 0),  # LoRA paper, FT-Top2
    ("roberta-base", TopLayers(1), 7_087_872, 592_130),
    ("roberta-base", TopLayers(0), 0, 592_130),
    ("roberta-large", TopLayers(0), 0, 1_051_650),
    ("wav2vec2-large", TopLayers(0), 0, 265_227),
    ("gpt2", TopLayers("all"), 124_439_808, 0),
]


@pytest.mark.parametrize(("model", "method", "trainable", "head"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: TopLayers, trainable: int, head: int) -> None:
    found = counts(model, method)
    assert (found.trainable, found.head) == (trainable, head)


def test_full_fine_tuning_counts_the_head_once() -> None:
    found = counts("roberta-base", TopLayers("all"))
    assert (found.trainable + found.head, found.head) == (124_647_170, 592_130)


def test_trains_the_named_blocks_in_place_and_puts_them_back() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    base = zoo.forward(model, batch)
    adapter = attach(model, TopLayers(1))
    assert set(adapter.trained) == {name for name in before if name.startswith("model.layers.1.")}
    zoo.forward(model, batch).square().mean().backward()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter -= 0.1 * parameter.grad
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(adapter.trained)
    with use(model, None):
        assert torch.equal(zoo.forward(model, batch), base)
    assert not torch.equal(zoo.forward(model, batch), base)
    detach(model)
    assert torch.equal(zoo.forward(model, batch), base)


def test_backward_stops_at_the_first_block_that_trains() -> None:
    model = zoo.tiny("llama")
    attach(model, TopLayers(1))
    seen = []
    model.model.layers[1].register_forward_pre_hook(lambda module, args: seen.append(args[0].requires_grad))
    model.model.layers[1].register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    zoo.forward(model, zoo.batch(model))
    assert seen == [False, True]


def test_final_norm_and_tied_embeddings() -> None:
    model = zoo.tiny("gpt2")
    adapter = attach(model, TopLayers(1, final_norm=True))
    outside = {name for name in adapter.trained if ".h.1." not in name}
    assert outside == {"transformer.ln_f.weight", "transformer.ln_f.bias"}


def test_everything_means_everything() -> None:
    model = zoo.tiny("bert", "classification")
    adapter = attach(model, TopLayers("all"))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    moved = {name for name, parameter in adapter.named_parameters() if parameter.grad is not None}
    assert moved == {name for name, _ in adapter.named_parameters()}
    assert adapter.counts.trainable + adapter.counts.head == sum(
        p.numel() for p in zoo.tiny("bert", "classification").parameters()
    )


def test_head_alone_needs_a_head() -> None:
    model = zoo.tiny("bert", "classification")
    adapter = attach(model, TopLayers(0))
    assert {name.split(".")[0] for name, _ in adapter.named_parameters()} == {"head"}
    with pytest.raises(NotApplied, match="nothing"):
        attach(zoo.tiny("llama"), TopLayers(0))


@pytest.mark.parametrize("k", [-1, 1.5, "two"])
def test_impossible_numbers_of_blocks(k: object) -> None:
    with pytest.raises(BadInput, match="TopLayers: k must be"):
        TopLayers(k)


def test_more_blocks_than_there_are() -> None:
    model = zoo.tiny("llama")
    with pytest.raises(BadInput, match=r"k=3, but the decoder has 2 blocks\. Try k='all'"):
        attach(model, TopLayers(3))
    assert all(p.requires_grad for p in model.parameters())
    cases.move(attach(model, LoRA(rank=2)))


def test_shares_a_model_with_no_other() -> None:
    model = zoo.tiny("llama")
    attach(model, TopLayers(1), "tuned")
    with pytest.raises(Refused, match="cannot share a model"):
        attach(model, LoRA(rank=2), "other")
    detach(model, "tuned")
    attach(model, LoRA(rank=2), "other")
    with pytest.raises(Refused, match="cannot share a model"):
        attach(model, TopLayers(1), "tuned")
    with pytest.raises(Refused, match="cannot be part of a sum"):
        attach(zoo.tiny("llama"), LoRA(rank=2) + TopLayers(1))
