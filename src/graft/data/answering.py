"""Greedy answers of generating models to the prompts in a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from graft.data.losses import inference, to_device
from graft.data.padding import IGNORED, pad_ids


def prompts_of(batch: Mapping[str, Tensor]) -> list[list[int]]:
    """The prompts in a batch for a causal model: each row's tokens before its last run of trained ones."""
    prompts = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        ids, trained = ids[mask.bool()].tolist(), (labels[mask.bool()] != IGNORED).tolist()
        end = len(ids)
        if any(trained):
            end = len(trained) - trained[::-1].index(True)
            while end > 0 and trained[end - 1]:
                end -= 1
        prompts.append(ids[:end])
    return prompts


def answers(
    model: Any, prompts: Sequence[Sequence[int]], tokenizer: Any, max_new_tokens: int, stops: Sequence[int] = ()
) -> list[str]:
    """What the model writes after each prompt, greedily, up to an end token; stripped text without special tokens.

    `stops`: ids that end an answer beside the tokenizer's and the model's end tokens. For causal models prompts are
    padded on the left; for encoder-decoder models they are the encoder's input, padded on the tokenizer's side.
    """
    joint = model.config.is_encoder_decoder
    inputs = to_device(pad_ids(prompts, tokenizer, tokenizer.padding_side if joint else "left"), model)
    ends = end_tokens(model, tokenizer, stops)
    with inference(model):
        written = model.generate(**inputs, generation_config=_greedy(model, tokenizer, max_new_tokens, ends))
    start = 0 if joint else inputs["input_ids"].shape[1]
    return [_text(row[start:].tolist(), ends, tokenizer, joint) for row in written]


def end_tokens(model: Any, tokenizer: Any, stops: Sequence[int] = ()) -> list[int]:
    """The ids at which an answer ends: the tokenizer's, the model's and those given."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(token for token in (tokenizer.eos_token_id, *own, *stops) if token is not None))


def _greedy(model: Any, tokenizer: Any, max_new_tokens: int, ends: list[int]) -> Any:
    """The model's own generation settings (start token and the like) with everything that samples or bends removed."""
    from transformers import GenerationConfig

    own = model.generation_config
    return GenerationConfig(
        do_sample=False, num_beams=1, num_return_sequences=1, temperature=1.0, top_p=1.0, top_k=50,
        repetition_penalty=1.0, no_repeat_ngram_size=0, length_penalty=1.0, max_length=None, min_length=0,
        max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends,
        bos_token_id=own.bos_token_id, decoder_start_token_id=own.decoder_start_token_id, use_cache=True,
    )  # fmt: skip


def _text(ids: list[int], ends: Sequence[int], tokenizer: Any, joint: bool) -> str:
    # An encoder-decoder model's first token is the decoder's start, which may be an end token itself (BART).
    ids = ids[1:] if joint else ids
    end = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return str(tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()
