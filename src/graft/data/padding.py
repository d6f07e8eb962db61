"""Batches of equal length from features of different lengths, and models and tokenizers that can pad at all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graft.errors import BadInput

IGNORED = -100
FILL = {"attention_mask": 0, "token_type_ids": 0, "labels": IGNORED, "word": -1, "offsets": -1}


def pad(features: Sequence[Mapping[str, Any]], tokenizer: Any, side: str) -> dict[str, Tensor]:
    """Lists as tensors [B, T] padded to the longest on `side`; numbers as tensors [B]; texts as they are.

    Raises BadInput when the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise BadInput("the tokenizer has no padding token; graft.data.prepare_padding gives it one.")
    batch: dict[str, Any] = {}
    for name in features[0]:
        values = [feature[name] for feature in features]
        if isinstance(values[0], list):
            fill = tokenizer.pad_token_id if name == "input_ids" else FILL[name]
            batch[name] = _padded(values, fill, side)
        elif isinstance(values[0], str):
            batch[name] = values
        else:
            batch[name] = torch.tensor(values)
    return batch


def pad_ids(rows: Sequence[Sequence[int]], tokenizer: Any, side: str) -> dict[str, Tensor]:
    """Token ids as `input_ids` and `attention_mask`."""
    return pad([{"input_ids": list(row), "attention_mask": [1] * len(row)} for row in rows], tokenizer, side)


def prepare_padding(tokenizer: Any, model: Any = None) -> str | None:
    """Give a tokenizer without a padding token one (its end token), and the model's configuration the same id.

    Returns a note when the tokenizer was changed. Classification heads on causal models need the id to find the last
    token of a row. Raises BadInput when there is no end token either.
    """
    note = None
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise BadInput("the tokenizer has neither a padding nor an end token; set tokenizer.pad_token.")
        tokenizer.pad_token = tokenizer.eos_token
        note = f"the tokenizer has no padding token; its end token {tokenizer.eos_token!r} pads (and is masked)"
    if model is not None:
        for config in {id(config): config for config in (model.config, model.config.get_text_config())}.values():
            if config.pad_token_id is None:
                config.pad_token_id = tokenizer.pad_token_id
    return note


def _padded(rows: Sequence[list[Any]], fill: int, side: str) -> Tensor:
    longest = max(len(row) for row in rows)
    shape = torch.tensor(next((row for row in rows if row), [0])).shape[1:]
    padded = torch.full((len(rows), longest, *shape), fill, dtype=torch.long)
    for number, row in enumerate(rows):
        if row:
            at = slice(longest - len(row), None) if side == "left" else slice(len(row))
            padded[number, at] = torch.tensor(row)
    return padded
