"""Virtual tokens and keys in generation: caches of every kind, continuing, beams with rows, padding on the left."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

import cases
import zoo
from graft.attach import attach, use
from graft.errors import BadInput, Refused
from graft.method import Method
from graft.methods.ladder_side import LadderSide
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning

VIRTUAL = {
    "prompt": PromptTuning(3), "prefix": PrefixTuning(3), "both": PromptTuning(2) + PrefixTuning(3),
    "network": PrefixTuning(3, reparameterize=True, hidden=4),
}  # fmt: skip
GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
on_virtual = pytest.mark.parametrize("which", VIRTUAL)


def made(which: str, name: str = "llama") -> nn.Module:
    model = zoo.tiny(name)
    cases.move(attach(model, VIRTUAL[which]))
    return model


def recomputed(model: nn.Module, ids: Tensor, steps: int) -> Tensor:
    """Greedy decoding by running everything again for each token, one unpadded row at a time; never an end token."""
    for _ in range(steps):
        scores = model(input_ids=ids, use_cache=False).logits[:, -1:]
        scores[..., model.config.eos_token_id] = -torch.inf
        ids = torch.cat((ids, scores.argmax(-1)), 1)
    return ids


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "gemma2"])
@on_virtual
def test_generation_is_recomputation_of_each_row_alone(which: str, name: str) -> None:
    model = made(which, name)
    batch = zoo.batch(model, left_padding=True)
    with torch.no_grad():
        ours = model.generate(**batch, **GREEDY)
        for row, mask in enumerate(batch["attention_mask"]):
            alone = recomputed(model, batch["input_ids"][row][mask.bool()][None], 5)
            assert torch.equal(ours[row, -5:], alone[0, -5:])


@on_virtual
@pytest.mark.parametrize("beams", [1, 2])
def test_static_cache_is_the_dynamic_one(which: str, beams: int) -> None:
    model = made(which)
    for left in (False, True):
        batch = zoo.batch(model, left_padding=left)
        if not left:
            batch = {key: value[:1] for key, value in batch.items()}
        plain = model.generate(**batch, **GREEDY, num_beams=beams)
        static = model.generate(**batch, **GREEDY, num_beams=beams, cache_implementation="static", disable_compile=True)
        assert torch.equal(static, plain)


@on_virtual
def test_continuing_from_a_cache(which: str) -> None:
    """Five tokens, then four more with what the cache holds, against nine at once."""
    model = made(which)
    ids = zoo.batch(model)["input_ids"][:1]
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        cache = DynamicCache()
        first = model(input_ids=ids[:, :5], past_key_values=cache).logits
        assert cache.get_seq_length() == 5  # virtual keys never enter it
        second = model(input_ids=ids[:, 5:], past_key_values=cache).logits
    torch.testing.assert_close(torch.cat((first, second), 1), whole, atol=1e-5, rtol=1e-5)


@on_virtual
def test_continuing_a_generation(which: str) -> None:
    model = made(which)
    ids = zoo.batch(model)["input_ids"][:1]
    whole = model.generate(input_ids=ids, **{**GREEDY, "max_new_tokens": 8, "min_new_tokens": 8})
    cache = DynamicCache()
    first = model.generate(input_ids=ids, past_key_values=cache, **{**GREEDY, "max_new_tokens": 4, "min_new_tokens": 4})
    second = model.generate(
        input_ids=first, past_key_values=cache, **{**GREEDY, "max_new_tokens": 4, "min_new_tokens": 4}
    )
    assert torch.equal(second, whole)


@on_virtual
def test_a_cache_survives_a_change_of_adapter_between(which: str) -> None:
    """The prefix of one adapter is not read by another forward in between."""
    model = made(which)
    cases.move(attach(model, PromptTuning(3), "other"), seed=5)
    ids = zoo.batch(model)["input_ids"][:1]
    with torch.no_grad(), use(model, "default"):
        whole = model(input_ids=ids, use_cache=False).logits
        cache = DynamicCache()
        first = model(input_ids=ids[:, :5], past_key_values=cache).logits
        with use(model, "other"):
            model(input_ids=ids)
        with use(model, None):
            model(input_ids=ids)
        second = model(input_ids=ids[:, 5:], past_key_values=cache).logits
    torch.testing.assert_close(torch.cat((first, second), 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
def test_rows_of_three_no_and_five_tokens(name: str, beams: int) -> None:
    """Each row with an adapter of its own, beams or not, against each row alone."""
    model = zoo.tiny(name)
    methods: dict[str, Method] = {
        "three": PromptTuning(3),
        "five": PromptTuning(5),
        "keys": PrefixTuning(4),
        "low": LoRA(rank=2),
    }
    for seed, (each, method) in enumerate(methods.items()):
        cases.move(attach(model, method, each), seed=seed)
    rows = ["three", None, "five", "keys", "low"]
    batch = zoo.batch(model, left_padding=name != "t5")
    batch.pop("decoder_input_ids", None)
    batch = {key: torch.cat((value, value, value[:1])) for key, value in batch.items()}
    with torch.no_grad():
        with use(model, rows):
            together = model.generate(**batch, **GREEDY, num_beams=beams)
        for index, row in enumerate(rows):
            mask = batch["attention_mask"][index].bool()
            one = {
                "input_ids": batch["input_ids"][index][mask][None],
                "attention_mask": torch.ones(1, int(mask.sum()), dtype=torch.long),
            }
            with use(model, row):
                alone = model.generate(**one, **GREEDY, num_beams=beams)
            assert torch.equal(together[index, -5:], alone[0, -5:]), row


@pytest.mark.parametrize("train", [False, True])
@on_virtual
def test_left_padding_changes_nothing_in_a_plain_forward(which: str, train: bool) -> None:
    """No positions given, with and without a cache: rows padded on the left are as they are alone."""
    model = made(which)
    model.train(train)
    batch = zoo.batch(model, left_padding=True)
    with torch.no_grad():
        together = zoo.forward(model, batch)
        for row, mask in enumerate(batch["attention_mask"].bool()):
            alone = model(input_ids=batch["input_ids"][row][mask][None]).logits[0]
            torch.testing.assert_close(together[row][mask], alone, atol=1e-5, rtol=1e-5)


def test_moved_tensors_are_seen_by_the_next_prompt() -> None:
    """A computed prefix is not kept over a change of the tokens it was computed from."""
    model = made("prompt")
    ids = zoo.batch(model)["input_ids"][:1]
    with torch.no_grad():
        before = model.generate(input_ids=ids, **GREEDY, output_logits=True, return_dict_in_generate=True).logits[0]
        cases.move(model.__dict__["_grafted"].adapters["default"], seed=9, by=1.0)
        after = model.generate(input_ids=ids, **GREEDY, output_logits=True, return_dict_in_generate=True).logits[0]
        plain = model(input_ids=ids, use_cache=False).logits[:, -1]
    assert (before - after).abs().max() > 1e-3
    torch.testing.assert_close(after, plain, atol=1e-5, rtol=1e-5)


def test_a_cache_without_what_the_adapter_keeps_is_refused() -> None:
    """A cache made inside the model is not there yet when the adapter's own keys are due: going on would lose them."""
    model = zoo.tiny("llama")
    cases.move(attach(model, LadderSide(reduction=4)))
    ids = zoo.batch(model)["input_ids"][:1]
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        inside = model(input_ids=ids[:, :5], use_cache=True).past_key_values
        with pytest.raises(Refused, match="from the first call on"):
            model(input_ids=ids[:, 5:], past_key_values=inside)
        cache = DynamicCache(config=model.config)
        model(input_ids=ids[:, :5], past_key_values=cache)
        rest = model(input_ids=ids[:, 5:], past_key_values=cache).logits
    torch.testing.assert_close(rest, whole[:, 5:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("which", ["prompt", "prefix"])
def test_more_tokens_than_learned_positions_are_refused(which: str, name: str) -> None:
    model = made(which, name)
    room = model.config.max_position_embeddings
    ids = torch.ones(1, room, dtype=torch.long)
    with torch.no_grad():
        model(input_ids=ids[:, : room - 3])
        with pytest.raises(BadInput, match=f"{room - 2} tokens and 3 virtual .* the {room} positions .* Cut the rows"):
            model(input_ids=ids[:, : room - 2])
        with use(model, None):
            model(input_ids=ids)
