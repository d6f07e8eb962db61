"""A tiny arena: a byte-level tokenizer, random models, and rows given by each test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from graft.data.rows import Row
from graft.data.tasks import find


@dataclass(frozen=True)
class Place:
    """What an entrant sees."""

    task: Any
    model: Any
    tokenizer: Any
    fresh: tuple[str, ...]
    train: Sequence[Row]
    held: Sequence[Row]
    test: Sequence[Row]

    @property
    def config(self) -> Any:
        return self.model.config

    def held_back(self, size: int) -> Sequence[Row]:
        return self.held


def rows_of(cells: Sequence[dict[str, Any]]) -> list[Row]:
    return [Row(each, f"rows.jsonl:{number}") for number, each in enumerate(cells, 1)]


@pytest.fixture(scope="session")
def letters() -> Any:
    """A tokenizer of single bytes: every text makes the round trip."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {letter: number for number, letter in enumerate(["<|end|>", *alphabet])}
    made = Tokenizer(models.BPE(words, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>",
                                   model_max_length=4096)  # fmt: skip


@pytest.fixture(scope="session")
def causal(letters: Any) -> Any:
    """A random GPT-2 with 512 positions."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(letters), n_embd=16, n_layer=1, n_head=2, n_positions=512, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture
def arena(letters: Any, causal: Any) -> Callable[..., Place]:
    """`arena("verbalized", cells, test=cells, length=512, fresh=(), **task_options)`."""

    def made(kind: str, train: Sequence[Any], test: Sequence[Any] | None = None, length: int = 512,
             fresh: tuple[str, ...] = (), **options: Any) -> Place:  # fmt: skip
        rows, asked = rows_of(train), rows_of(test if test is not None else train)
        task: Any = find(kind)
        return Place(task.fit(rows, letters, causal.config, length, **options), causal, letters, fresh, rows, asked,
                     asked)  # fmt: skip

    return made


@pytest.fixture
def seen(letters: Any, causal: Any) -> Any:
    """The texts that the model reads, as they are read: the first tokens of a generation, or all of a scored row."""
    texts: list[str] = []

    def look(module: Any, arguments: Any, options: Any) -> None:
        ids = options["input_ids"]
        mask = options.get("attention_mask", torch.ones_like(ids))
        if ids.shape[1] > 1:
            texts.extend(letters.decode(row[on.bool()]) for row, on in zip(ids, mask[:, -ids.shape[1] :], strict=True))

    handle = causal.register_forward_pre_hook(look, with_kwargs=True)
    yield texts
    handle.remove()
