"""Tasks whose answer a model writes: the room for it, and greedy answers to the prompts in a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from graft.data.encoding import text_ids
from graft.data.losses import answer_losses, inference, to_device
from graft.data.padding import IGNORED, pad_ids
from graft.data.task import Record, Task, facts
from graft.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Answered(Task):
    """Base of the tasks whose answer is written. `template` makes text of a row; `max_new_tokens` is the room kept for
    an answer, learned from the lengths of the references."""

    head: ClassVar[str] = "AutoModelForCausalLM"
    extras: ClassVar[frozenset[str]] = frozenset({"item", "bytes", "cut"})

    template: str
    max_new_tokens: int

    @classmethod
    def learned(
        cls, references: Sequence[str], tokenizer: Any, config: Any, max_length: int | None, max_new_tokens: int | None
    ) -> dict[str, Any]:
        """The fields but the template. Raises BadInput for a tokenizer without an end token."""
        if tokenizer.eos_token_id is None:
            raise BadInput(f"{cls.kind}: the tokenizer has no end token, so no answer could ever end.")
        found = facts(tokenizer, config, max_length)
        room = max_new_tokens or answer_room(references, tokenizer, found["max_length"])
        return {**found, "max_new_tokens": room}

    def written(
        self, model: Any, batch: Mapping[str, Any], prompts: Sequence[Sequence[int]], tokenizer: Any,
        stops: Sequence[int] = (),
    ) -> list[Record]:  # fmt: skip
        """`output`, the greedy answer to each prompt; `loss`, `tokens`, `bytes` of what is trained in the batch."""
        records = answer_losses(model, batch, self.inputs(batch))
        texts = answers(model, prompts, tokenizer, self.max_new_tokens, stops)
        return [{**record, "output": text} for record, text in zip(records, texts, strict=True)]


def answer_room(references: Sequence[str], tokenizer: Any, max_length: int) -> int:
    """Tokens to let an answer have: a quarter more than 99 of 100 references need, at most half of the length."""
    longest = sorted(len(text_ids(text, tokenizer)) + 1 for text in sorted(references, key=len)[-2000:])
    needed = longest[max(len(longest) - 1 - len(references) // 100, 0)] if longest else 64
    return max(1, min(needed + needed // 4, max_length // 2))


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
