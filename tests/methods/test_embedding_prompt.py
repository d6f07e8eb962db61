"""Embedding prompt: published counts, every block on longer rows by hand, positions, sums, starts, refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, use
from graft.attach.recompute import checkpoint_activations
from graft.errors import BadInput, NotApplied, Refused
from graft.method import find
from graft.methods.embedding_prompt import EmbeddingPrompt
from methods.sizes import counts

PUBLISHED = [
    ("bert-base", EmbeddingPrompt(), 46_080),  # PEFT-SER's code at base size
    ("roberta-large", EmbeddingPrompt(10), 24 * 10 * 1024),
    ("t5-base", EmbeddingPrompt(), 24 * 5 * 768),  # encoder and decoder
]
LAYERS = {
    "bert": "bert.encoder.layer", "roberta": "roberta.encoder.layer",
    "albert": "albert.encoder.albert_layer_groups.0.albert_layers",
    "gpt2": "transformer.h", "llama": "model.layers", "qwen3": "model.layers", "mistral": "model.layers",
    "gemma2": "model.layers",
}  # fmt: skip


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: EmbeddingPrompt, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def put(layers: Any, prompts: list[Tensor]) -> None:
    """From now on each layer reads its own prompt in the first places of its input."""

    def swap(prompt: Tensor) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple:
            x = args[0] if args else kwargs["hidden_states"]
            x = torch.cat((prompt.expand(len(x), -1, -1), x[:, len(prompt) :]), 1)
            return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

        return hook

    for layer, prompt in zip(layers, prompts, strict=True):
        layer.register_forward_pre_hook(swap(prompt.detach()), with_kwargs=True)


@pytest.mark.parametrize("name", LAYERS)
def test_block_on_longer_rows_by_hand(name: str) -> None:
    """Learned positions of real tokens stay; rotary ones, normed keys and windows see T + n tokens."""
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "embedding_prompt")
    put(base.get_submodule(LAYERS[name]), [part.P for part in adapter.parts.values()])
    ids = zoo.batch(base)["input_ids"][:1]
    real = torch.arange(9)[None]
    rotary = name in ("llama", "qwen3", "mistral", "gemma2")
    positions = torch.arange(12)[None] if rotary else torch.cat((real[:, :3], real), 1)
    if name == "roberta":
        positions = positions + base.config.pad_token_id + 1
    longer = torch.cat((torch.full((1, 3), 7), ids), 1)
    expected = base(input_ids=longer, position_ids=positions).logits[:, 3:]
    torch.testing.assert_close(tuned(input_ids=ids).logits, expected, atol=2e-5, rtol=2e-5)


def test_both_stacks_of_an_encoder_decoder() -> None:
    base, tuned = zoo.tiny("t5"), zoo.tiny("t5")
    adapter = cases.grafted(tuned, "embedding_prompt")
    assert adapter.coverage == {"layer": 4}
    for stack in ("encoder", "decoder"):
        prompts = [part.P for key, part in adapter.parts.items() if key.startswith(stack)]
        put(base.get_submodule(f"{stack}.block"), prompts)
    batch = {key: value[:1] for key, value in zoo.batch(base).items()}
    front = torch.full((1, 3), 7)
    memory = base.encoder(input_ids=torch.cat((front, batch["input_ids"]), 1)).last_hidden_state[:, 3:]
    expected = base(
        encoder_outputs=(memory,), decoder_input_ids=torch.cat((front, batch["decoder_input_ids"]), 1)
    ).logits[:, 3:]
    torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=2e-5, rtol=2e-5)


def test_some_blocks_alone() -> None:
    base, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "embedding_prompt", sites="layer @ top 1")
    (part,) = adapter.parts.values()
    ids = zoo.batch(base)["input_ids"][:1]
    first, second = base.model.layers
    hidden: dict[str, Tensor] = {}
    first.register_forward_hook(lambda m, a, out: hidden.update(x=out))
    base(input_ids=ids)
    put([second], [part.P])
    # What the first layer gives without any prompt, with room in front for that of the second.
    first.register_forward_hook(lambda m, a, out: torch.cat((out[:, :3], hidden["real"]), 1))
    hidden["real"] = hidden["x"]
    expected = base(input_ids=torch.cat((ids[:, :3], ids), 1)).logits[:, 3:]
    torch.testing.assert_close(tuned(input_ids=ids).logits, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("other", ["prompt_tuning", "prefix_tuning", "embedding_prompt"])
def test_a_sum_with_other_virtual_tokens_generates_as_it_recomputes(other: str) -> None:
    model = zoo.tiny("llama")
    sites = {"sites": "layer @ top 1"} if other == "embedding_prompt" else {}
    adapter = attach(model, find(other)(tokens=2, **sites) + EmbeddingPrompt(3))
    cases.move(adapter)
    batch = zoo.batch(model, left_padding=True)
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(**batch, **options, use_cache=False)
    assert torch.equal(model.generate(**batch, **options, use_cache=True), plain)
    cached, whole = model(**batch, use_cache=True).logits, model(**batch, use_cache=False).logits
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(cached[real], whole[real], atol=2e-5, rtol=2e-5)


def test_rows_with_prompts_of_different_length() -> None:
    model = zoo.tiny("gpt2")
    for name, tokens in (("short", 2), ("long", 5)):
        cases.move(attach(model, EmbeddingPrompt(tokens), name))
    batch = zoo.batch(model)
    with use(model, ["short", "long"]):
        together = zoo.forward(model, batch)
    for row, name in enumerate(("short", "long")):
        with use(model, name):
            alone = zoo.forward(model, batch)[row]
        real = batch["attention_mask"][row].bool()
        torch.testing.assert_close(together[row][real], alone[real], atol=2e-5, rtol=2e-5)


def test_prompts_take_no_learned_positions() -> None:
    model = zoo.tiny("gpt2")
    attach(model, EmbeddingPrompt(5))
    assert model(input_ids=torch.full((1, 64), 7)).logits.isfinite().all()
    attach(model, EmbeddingPrompt(30) + EmbeddingPrompt(35), "long")
    with pytest.raises(BadInput, match="65 virtual tokens at a layer are more than the 64 positions"):
        model(input_ids=torch.full((1, 8), 7))


def test_starts_and_first_gradients() -> None:
    model = zoo.tiny("bert")
    adapter = attach(model, EmbeddingPrompt(60))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    for part in adapter.parts.values():
        bound = (6 / (60 + 32)) ** 0.5
        assert part.P.detach().abs().max() <= bound and abs(float(part.P.detach().std()) * 3**0.5 / bound - 1) < 0.05
        assert part.P.grad.any()


def test_reentrant_checkpointing_is_refused() -> None:
    model = zoo.tiny("llama").train()
    cases.grafted(model, "embedding_prompt")
    checkpoint_activations(model, True)
    for owner in model.modules():
        if hasattr(owner, "_gradient_checkpointing_func"):
            owner._gradient_checkpointing_func = lambda segment, *args, **kwargs: torch.utils.checkpoint.checkpoint(
                segment, *args, **kwargs, use_reentrant=True
            )
    with pytest.raises(Refused, match="use_reentrant=False"):
        zoo.forward(model, zoo.batch(model))


def test_refusals() -> None:
    with pytest.raises(BadInput, match="EmbeddingPrompt: tokens must be at least 1"):
        EmbeddingPrompt(0)
    with pytest.raises(NotApplied, match="attention interface"):
        attach(zoo.tiny("bloom"), EmbeddingPrompt(3))
    with pytest.raises(Refused, match="reads no token embeddings"):
        attach(zoo.tiny("vit"), EmbeddingPrompt(3))
