"""Language modeling: every token is predicted exactly once, packed for training and row by row for scores."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graft.data import prepare_padding
from graft.data.tasks.language_modeling import LanguageModeling
from graft.errors import Refused

TEXT = st.text(alphabet="abc é🙂\n", min_size=1, max_size=40)


def predicted(blocks: list[dict[str, Any]]) -> list[int]:
    return [label for block in blocks for label in block["labels"] if label != -100]


@pytest.mark.parametrize("family", ["byte_level", "metaspace"])
@given(texts=st.lists(TEXT, min_size=1, max_size=6), length=st.integers(8, 30))
def test_every_token_is_predicted_once(shared: Any, family: str, texts: list[str], length: int) -> None:
    words = shared(family)
    task = LanguageModeling(max_length=length)
    rows = [{"text": text} for text in texts]
    spelled = [[*words(text, add_special_tokens=False)["input_ids"], words.eos_token_id] for text in texts]
    for row, ids in zip(rows, spelled, strict=True):
        windows = task.windows(row, words)
        assert predicted(windows) == ids
        assert sum(window["bytes"] for window in windows) == len(row["text"].encode())
        assert all(2 <= len(window["input_ids"]) <= length for window in windows)
        for window in windows:
            assert window["labels"][1:] == window["input_ids"][1:] and window["labels"][0] == -100
    packed = task.features(rows, words, train=True)
    assert all(len(block["input_ids"]) == length for block in packed[:-1])
    starts = [] if words.bos_token_id is None else [words.bos_token_id]
    stream = [token for ids in spelled for token in (*starts, *ids)][len(starts) :]
    assert predicted(packed) == stream
    assert packed[0]["item"] == 0 and [b["item"] for b in packed] == sorted(b["item"] for b in packed)


def test_scores_are_those_of_the_model_over_whole_rows(tokenizer: Any, model: Any) -> None:
    words = tokenizer("metaspace")
    network = model("AutoModelForCausalLM", "llama", words)
    rows = [{"text": "the cat sat on the mat"}, {"text": "a dog"}]
    task = LanguageModeling.fit(rows, words, network.config, max_length=64)
    batch = task.collate(task.features(rows, words), words)
    records = task.gather(task.predict(network, batch, words))
    for record, row in zip(records, rows, strict=True):
        ids = torch.tensor([[*words(row["text"])["input_ids"], words.eos_token_id]])
        chances = network(ids).logits[0, :-1].log_softmax(-1)
        expected = -chances.gather(-1, ids[0, 1:, None]).sum().item()
        assert record["loss"] == pytest.approx(expected, rel=1e-4)
        assert (record["tokens"], record["bytes"]) == (ids.shape[1] - 1, len(row["text"]))


def test_windows_of_a_row_are_summed(shared: Any) -> None:
    task = LanguageModeling(max_length=8)
    parts = [
        {"item": 1, "loss": 1.0, "tokens": 2, "bytes": 9}, {"item": 0, "loss": 2.0, "tokens": 1, "bytes": 4},
        {"item": 1, "loss": 0.5, "tokens": 3, "bytes": 0},
    ]  # fmt: skip
    assert task.gather(parts) == [
        {"item": 0, "loss": 2.0, "tokens": 1, "bytes": 4}, {"item": 1, "loss": 1.5, "tokens": 5, "bytes": 9}
    ]  # fmt: skip


def test_encoder_decoder_models_are_refused(tokenizer: Any, model: Any) -> None:
    joint = model("AutoModelForSeq2SeqLM", "t5", tokenizer("unigram"))
    with pytest.raises(Refused, match="for causal models"):
        LanguageModeling(max_length=8).auto(joint.config)
    words = tokenizer("byte_level")
    gpt = model("AutoModelForCausalLM", "gpt2", words)
    assert prepare_padding(words, gpt) is not None
    assert LanguageModeling(max_length=8).auto(gpt.config) == "AutoModelForCausalLM"
