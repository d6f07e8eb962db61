"""Prompt tuning: published counts, positions by hand for every kind of position, starts from words, refusals."""

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach
from graft.errors import BadInput
from graft.methods.prompt_tuning import PromptTuning
from methods.sizes import counts

PUBLISHED = [
    ("roberta-base", PromptTuning(20), 607_490 - 592_130, 592_130),  # 0.61M with the head
    ("roberta-large", PromptTuning(20), 1_072_130 - 1_051_650, 1_051_650),  # 1.07M with the head
    ("t5-base", PromptTuning(100), 76_800, 0),  # Compacter's table, 0.034 %
    ("t0-11b", PromptTuning(5), 20_480, 0),  # Lester et al., T5-XXL with 5 tokens
]


@pytest.mark.parametrize(("model", "method", "trainable", "head"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: PromptTuning, trainable: int, head: int) -> None:
    found = counts(model, method)
    assert (found.trainable, found.head, found.changed) == (trainable, head, 0)


def by_hand(model: nn.Module, batch: dict[str, Tensor], prompt: Tensor) -> Tensor:
    """The prompt's embeddings concatenated in front, one row at a time and without padding, then cut off."""
    embed = model.get_input_embeddings()
    rows = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        own = ids[mask.bool()][None]
        inputs = torch.cat((prompt[None], embed(own)), 1)
        rows.append(model(inputs_embeds=inputs).logits[0, len(prompt) :])
    return torch.cat(rows)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bert", "roberta", "mistral", "gemma2"])
def test_positions_by_hand(name: str, left: bool) -> None:
    """Rotary, learned, learned with an offset, absolute, with a window, with scaled embeddings; either padding side."""
    if left and name in ("bert", "roberta"):
        return  # encoders number their positions from the left, padding or not, and are padded on the right
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "prompt_tuning")
    batch = zoo.batch(base, left_padding=left)
    (part,) = adapter.parts.values()
    ours = zoo.forward(tuned, batch)[batch["attention_mask"].bool()]
    torch.testing.assert_close(ours, by_hand(base, batch, part.P.detach()), atol=2e-5, rtol=2e-5)


def test_encoder_decoder_gets_them_in_the_encoder_alone() -> None:
    base, tuned = zoo.tiny("t5"), zoo.tiny("t5")
    adapter = cases.grafted(tuned, "prompt_tuning")
    assert list(adapter.coverage.values()) == [1]
    batch = zoo.batch(base)
    (part,) = adapter.parts.values()
    ours = zoo.forward(tuned, batch)
    for row in range(2):
        own = batch["input_ids"][row][batch["attention_mask"][row].bool()][None]
        inputs = torch.cat((part.P.detach()[None], base.shared(own)), 1)
        theirs = base(inputs_embeds=inputs, decoder_input_ids=batch["decoder_input_ids"][row : row + 1]).logits[0]
        torch.testing.assert_close(ours[row], theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("variant", ["paper", "hf"])
def test_pooler_reads_the_classification_token_unless_asked_for_peft(variant: str) -> None:
    """[CLS] moves behind the prompt; PEFT's encoders pool at the first virtual token instead."""
    base, tuned = zoo.tiny("roberta", "classification"), zoo.tiny("roberta", "classification")
    adapter = attach(tuned, PromptTuning(tokens=3, variant=variant), head=False)
    cases.move(adapter)
    (part,) = adapter.parts.values()
    batch = zoo.batch(base)
    ids = batch["input_ids"][:1]
    inputs = torch.cat((part.P.detach()[None], base.roberta.embeddings.word_embeddings(ids)), 1)
    hidden = base.roberta(inputs_embeds=inputs).last_hidden_state
    read = hidden if variant == "hf" else hidden[:, 3:]
    torch.testing.assert_close(tuned(input_ids=ids).logits, base.classifier(read), atol=1e-5, rtol=1e-5)


def words(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
    assert not add_special_tokens
    return {"input_ids": [10 + len(word) for word in text.split()]}


def test_starts() -> None:
    model = zoo.tiny("llama", max_position_embeddings=256)
    rows = model.get_input_embeddings().weight.detach()

    def start(**settings: object) -> Tensor:
        adapter = attach(model, PromptTuning(**settings), "one", tokenizer=words)
        detach(model, "one")
        (part,) = adapter.parts.values()
        return part.P.detach()

    def is_a_word(row: Tensor) -> bool:
        return bool((rows == row).all(-1).any())

    sample = start(tokens=20)
    assert all(map(is_a_word, sample)) and len(sample.unique(dim=0)) == 20
    assert all(map(is_a_word, start(tokens=120)))  # more than the vocabulary has
    text = start(tokens=5, init="text", text="a bb")
    assert torch.equal(text, rows[[11, 12, 11, 12, 11]])
    classes = start(tokens=4, init="classes", text="a bb")
    assert torch.equal(classes[:2], rows[[11, 12]]) and all(map(is_a_word, classes[2:]))
    uniform = start(tokens=100, init="uniform")
    assert uniform.abs().max() <= 0.5 and abs(float(uniform.std()) - 12**-0.5) < 0.02


def test_starts_from_words_need_words_and_a_tokenizer() -> None:
    with pytest.raises(BadInput, match=r"init='text' begins from words\. Give them as text="):
        PromptTuning(init="text")
    with pytest.raises(BadInput, match=r"needs a tokenizer: graft.attach"):
        attach(zoo.tiny("llama"), PromptTuning(init="classes", text="good bad"))


def test_no_tokens_is_refused() -> None:
    with pytest.raises(BadInput, match=r"PromptTuning: tokens must be at least 1, got 0\. Try 20"):
        PromptTuning(0)
