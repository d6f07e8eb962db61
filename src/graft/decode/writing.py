"""Writing text with a model, piece by piece as it comes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from torch import nn

from graft.data.answering import end_tokens
from graft.data.losses import inference
from graft.data.task import Task
from graft.data.turns import end_marker
from graft.errors import BadInput
from graft.limits import finite

ROOM = 128  # new tokens where no task says how many


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How to write. temperature 0 takes the likeliest token; top_k 0 and top_p 1 leave all tokens in."""

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("temperature", "top_p", "repetition_penalty")}
        wrong = [f"{name} must be a finite number, got {value}" for name, value in numbers.items() if not finite(value)]
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            wrong.append(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature < 0:
            wrong.append(f"temperature must not be negative, got {self.temperature}")
        if not 0 < self.top_p <= 1 and finite(self.top_p):
            wrong.append(f"top_p must lie above 0 and at most at 1, got {self.top_p}")
        if self.top_k < 0 or self.beams < 1 or self.repetition_penalty <= 0:
            wrong.append("top_k must be at least 0, beams at least 1, repetition_penalty above 0")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            wrong.append("top_k and top_p choose among tokens: give a --temperature above 0")
        if wrong:
            raise BadInput("; ".join(wrong) + ".")


def write(
    model: nn.Module, tokenizer: Any, ids: Sequence[int], how: Writing, task: Task | None = None
) -> Iterator[str]:
    """The text that the model writes after `ids`, in pieces as they come (in one piece with beams).

    Ends at the model's and the tokenizer's end tokens and, in a chat, where a turn ends.
    """
    from transformers import GenerationConfig

    room = how.max_new_tokens or getattr(task, "max_new_tokens", ROOM)
    joint = model.config.is_encoder_decoder  # type: ignore[union-attr]
    own = model.generation_config
    config = GenerationConfig(
        max_new_tokens=room, do_sample=how.temperature > 0, num_beams=how.beams, use_cache=True,
        repetition_penalty=how.repetition_penalty, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end_tokens(model, tokenizer, _stops(task, tokenizer)), bos_token_id=own.bos_token_id,  # type: ignore[union-attr]
        decoder_start_token_id=own.decoder_start_token_id,  # type: ignore[union-attr]
        **({"temperature": how.temperature, "top_k": how.top_k, "top_p": how.top_p} if how.temperature > 0 else {}),
    )  # fmt: skip
    device = next(model.parameters()).device
    inputs = {"input_ids": torch.tensor([list(ids)], device=device)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    torch.manual_seed(how.seed)

    def run(streamer: Any = None) -> Any:
        with inference(model):
            return model.generate(**inputs, generation_config=config, streamer=streamer)  # type: ignore[operator]

    if how.beams > 1:
        written = run()[0][0 if joint else len(ids) :]
        yield tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return
    yield from _streamed(run, tokenizer, skip_prompt=not joint)


def _streamed(run: Callable[[Any], Any], tokenizer: Any, skip_prompt: bool) -> Iterator[str]:
    """Run in another thread, and give the text as it comes; an error there is raised here."""
    from transformers import TextStreamer

    pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()

    class Stream(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.put(text)

    def work() -> None:
        try:
            run(
                Stream(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
        except BaseException as error:
            pieces.put(error)
        finally:
            pieces.put(None)

    thread = Thread(target=work, daemon=True)
    thread.start()
    while (piece := pieces.get()) is not None:
        if isinstance(piece, BaseException):
            raise piece
        if piece:
            yield piece
    thread.join()


def _stops(task: Task | None, tokenizer: Any) -> list[int]:
    """The special tokens that end a turn of a chat."""
    if task is None or task.kind != "chat":
        return []
    template: str = task.template  # type: ignore[attr-defined]
    ids = tokenizer(end_marker(tokenizer, template).strip(), add_special_tokens=False)["input_ids"]
    return [stop for stop in ids if stop in tokenizer.all_special_ids]
