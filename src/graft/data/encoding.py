"""Texts as token ids: one text or a pair, a prompt, an answer that ends."""

from collections.abc import Mapping
from typing import Any

Features = dict[str, Any]


def encode_texts(row: Mapping[str, Any], tokenizer: Any, max_length: int, token_types: bool) -> Features:
    """`text` (and `text_pair`) with the tokenizer's special tokens, the longer text cut first.

    A tokenizer without a separator would run a pair into one; there a line feed is put between.
    """
    text, pair = row["text"], row.get("text_pair")
    if pair is not None and tokenizer.sep_token_id is None:
        text, pair = f"{text}\n{pair}", None
    encoded = tokenizer(
        text, pair, truncation=True, max_length=max_length, return_token_type_ids=token_types, verbose=False
    )
    return model_inputs(encoded, token_types)


def model_inputs(encoded: Mapping[str, Any], token_types: bool) -> Features:
    """Ids and mask, with token types only for a model that has them."""
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if token_types else ()))
    return {name: list(encoded[name]) for name in names if name in encoded}


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """The ids of a text alone, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def prompt_ids(text: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """A prompt for a causal model as (start, rest): `start` is the start token where the tokenizer writes one.

    An empty prompt starts with the start or end token, so that there is something to go on from.
    """
    rest = text_ids(text, tokenizer)
    if starts(tokenizer):
        return [tokenizer.bos_token_id], rest
    if not rest:
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [first], rest
    return [], rest


def starts(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its start token before a text."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [bos]


def answer_ids(text: str, tokenizer: Any) -> list[int]:
    """The ids of an answer, and the end token after it."""
    return [*text_ids(text, tokenizer), tokenizer.eos_token_id]


def target_ids(text: str, tokenizer: Any) -> list[int]:
    """The ids of an answer for an encoder-decoder model: the tokenizer's special tokens, and the end token last."""
    ids = list(tokenizer(text_target=text, verbose=False)["input_ids"])
    return ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, tokenizer.eos_token_id]
