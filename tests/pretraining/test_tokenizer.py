"""Trained tokenizers: byte-level BPE loses nothing, every kind has the size asked for and loads again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from graft.errors import BadInput
from graft.pretraining.tokenizer import MODES, load_tokenizer, sentinels, train_tokenizer

SAID = "def return import class self value the of a function string number list file path name open read"
WORDS = SAID.split()
NEIGHBORS = zip(WORDS * 9, WORDS[3:] * 9, WORDS[5:] * 9, WORDS[7:] * 9, strict=False)
TEXTS = [f"{a} {b}({c}):\n    {d}_{a}{n % 97}\n" for n, (a, b, c, d) in enumerate(NEIGHBORS)]
BPE = train_tokenizer(TEXTS, "bpe", 320)


@given(st.text())
def test_byte_level_bpe_loses_nothing(text: str) -> None:
    ids = BPE(text, add_special_tokens=False).input_ids
    assert BPE.decode(ids) == text


@pytest.mark.parametrize(("kind", "vocabulary"), [("bpe", 320), ("wordpiece", 130), ("unigram", 104)])
def test_every_kind_has_the_size_asked_for_and_loads_again(kind: str, vocabulary: int, tmp_path: Path) -> None:
    made = train_tokenizer(TEXTS, kind, vocabulary, positions=64)
    assert len(made) == vocabulary
    made.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again(TEXTS[0]).input_ids == made(TEXTS[0]).input_ids
    assert again.model_max_length == 64 and again.pad_token_id is not None
    assert len({again.pad_token_id, again.eos_token_id if kind != "wordpiece" else again.sep_token_id}) == 2
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is type(again)
    assert again.decode(again("the list of a file", add_special_tokens=False).input_ids) == "the list of a file"


def test_wordpiece_frames_a_text_as_bert_does() -> None:
    made = train_tokenizer(TEXTS, "wordpiece", 130)
    pair = made("the list", "a file")
    assert made.convert_ids_to_tokens(pair.input_ids)[0] == "[CLS]"
    assert pair.input_ids.count(made.sep_token_id) == 2
    assert 1 in pair.token_type_ids


def test_sentinels_and_modes_are_there_for_denoising() -> None:
    assert sentinels(BPE) == []
    made = train_tokenizer(TEXTS, "bpe", 420, denoising=True)
    found = sentinels(made)
    assert len(set(found)) == 100 and made.convert_ids_to_tokens(found[:2]) == ["<extra_id_0>", "<extra_id_1>"]
    assert all(mode in made.get_vocab() for mode in MODES)


def test_a_vocabulary_must_fit_the_text(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"too large for this text: it has \d+ distinct bpe pieces"):
        train_tokenizer(TEXTS[:2], "bpe", 5000)
    with pytest.raises(BadInput, match="too small for bpe: at least 258"):
        train_tokenizer(TEXTS, "bpe", 200)
    with pytest.raises(BadInput, match=r"has no tokenizer_config\.json"):
        load_tokenizer(tmp_path)
