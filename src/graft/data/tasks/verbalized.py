"""Classification by a causal model: each label is a word, and the likeliest word after the prompt is the answer.

A word's score is log P(word | prompt), summed over its tokens: the probability that the model writes it, and what
training lowers. `per_token` takes the mean instead (Brown et al. 2020, arXiv 2005.14165, §2.4), for words of different
length. `calibrate` divides the probabilities by those that the model gives when the texts say nothing (contextual
calibration, Zhao et al. 2021, arXiv 2102.09690: W = diag(p_cf)⁻¹, b = 0), so that a word it likes anyway is no answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graft.data.answering import prompts_of
from graft.data.encoding import prompt_ids, text_ids
from graft.data.losses import inference, to_device
from graft.data.padding import IGNORED, pad, pad_ids
from graft.data.task import Features, Record, Task, facts
from graft.data.tasks.classification import Classification
from graft.data.templates import columns_of, render
from graft.errors import BadInput, Refused

ONE = "Text: {{ text }}\nLabel:"
PAIR = "Text 1: {{ text }}\nText 2: {{ text_pair }}\nLabel:"
CONTENT_FREE = ("N/A", "", "[MASK]")
TOGETHER = 8  # sequences that go through a model at once, however few rows there are


@dataclass(frozen=True, kw_only=True)
class Verbalized(Classification):
    """`words` stand for `labels`, in the same order; by default they are the labels. `template` makes the prompt, which
    a space parts from the word. `preamble` is written before every prompt, as examples are. Too long a prompt loses its
    beginning. Where one word begins another, the end token ends each.
    """

    kind: ClassVar[str] = "verbalized"
    head: ClassVar[str] = "AutoModelForCausalLM"
    extras: ClassVar[frozenset[str]] = frozenset({"item", "label"})

    words: tuple[str, ...]
    template: str
    calibrate: bool = False
    per_token: bool = False
    preamble: str = ""

    @classmethod
    def fit(
        cls,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        config: Any,
        max_length: int | None = None,
        template: str | None = None,
        words: Mapping[str, str] | None = None,
        calibrate: bool = False,
        per_token: bool = False,
    ) -> Self:
        """The labels as for classification. `words`: for each label the word that stands for it; others stay."""
        if tokenizer.eos_token_id is None:
            raise BadInput("verbalized: the tokenizer has no end token.")
        labels = Classification.fit(rows, tokenizer, config, max_length).labels
        if unknown := sorted(set(words or {}) - set(labels)):
            raise BadInput(f"verbalized: no label is called {', '.join(unknown)}; the labels are {', '.join(labels)}.")
        template = template or (PAIR if any("text_pair" in row for row in rows) else ONE)
        columns_of(template)
        task = cls(
            labels=labels, words=tuple((words or {}).get(label, label) for label in labels), template=template,
            calibrate=calibrate, per_token=per_token, **facts(tokenizer, config, max_length),
        )  # fmt: skip
        task.word_ids(tokenizer)
        return task

    def prompt(self, row: Mapping[str, Any]) -> str:
        """The text that a word is to follow."""
        return self.preamble + render(self.template, row)

    def shown(self, row: Mapping[str, Any]) -> str:
        """A row with its right word, as an example of the task."""
        return f"{render(self.template, row)} {self.words[self.labels.index(row['label'])]}"

    def word_ids(self, tokenizer: Any) -> list[list[int]]:
        """The tokens of each word as it follows a prompt. Raises BadInput for words that the tokens do not tell apart,
        or that fill the length limit."""
        found = [list(ids) for ids in _tokens(self.words, tokenizer)]
        if max(map(len, found)) > self.max_length // 2:
            raise BadInput(f"verbalized: a word takes more than half of {self.max_length} tokens: more --length.")
        return found

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """The prompt with the right word after it, which alone is trained; without a known label the prompt alone."""
        words = self.word_ids(tokenizer)
        prompt = self.fitted(self.prompt(row), words, tokenizer)
        label = self.labels.index(row["label"]) if row.get("label") in self.labels else IGNORED
        word = words[label] if label != IGNORED else []
        ids = prompt + word
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [IGNORED] * len(prompt) + word,
                "label": label}  # fmt: skip

    def room(self, words: Sequence[Sequence[int]]) -> int:
        """Tokens that a prompt may have, so that it is the same whichever word follows."""
        return self.max_length - max(map(len, words))

    def fitted(self, prompt: str, words: Sequence[Sequence[int]], tokenizer: Any) -> list[int]:
        """The tokens of a prompt, as much of its end as there is room for."""
        start, rest = prompt_ids(prompt, tokenizer)
        return start + rest[max(len(rest) + len(start) - self.room(words), 0) :]

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """Padded on the right, whatever the tokenizer's side: positions then count from 0."""
        return pad(features, tokenizer, "right")

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`output` the label of the likeliest word, `probabilities` of all, `loss` of the right one among them."""
        words = self.word_ids(tokenizer)
        scores = self.scores(model, prompts_of(batch), words, tokenizer)
        if self.calibrate:
            scores = scores - self.unasked(model, words, tokenizer)
        chances = scores.log_softmax(dim=-1)
        records = []
        for item, label, row in zip(batch["item"].tolist(), batch["label"].tolist(), chances, strict=True):
            found = {"item": item, "output": self.labels[int(row.argmax())], "probabilities": row.exp().tolist()}
            records.append(found | ({"loss": -row[label].item()} if label != IGNORED else {}))
        return records

    def scores(
        self, model: Any, prompts: Sequence[Sequence[int]], words: Sequence[Sequence[int]], tokenizer: Any
    ) -> Tensor:
        """[prompts, words] log-probabilities of each word after each prompt, not normalized over the words."""
        scores = word_scores(model, prompts, words, tokenizer)
        return scores / scores.new_tensor([len(word) for word in words]) if self.per_token else scores

    def unasked(self, model: Any, words: Sequence[Sequence[int]], tokenizer: Any) -> Tensor:
        """[words] log-probabilities where the texts say nothing, the mean over three ways to say nothing."""
        empty = [dict.fromkeys(columns_of(self.template), text) for text in CONTENT_FREE]
        prompts = [self.fitted(self.prompt(row), words, tokenizer) for row in empty]
        chances = self.scores(model, prompts, words, tokenizer).log_softmax(dim=-1)
        return chances.logsumexp(dim=0) - math.log(len(prompts))  # in logarithms: a long word's chance is 0 as a float

    def auto(self, config: Any) -> str:
        """Causal models only."""
        if config.is_encoder_decoder:
            raise Refused("verbalized is for causal models; for an encoder-decoder model use --task classification.")
        return super().auto(config)

    def model_options(self) -> dict[str, Any]:
        """None: the model keeps its own head."""
        return {}

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """The prompt, then the word."""
        return Task.segments(self, feature, tokenizer)


def word_scores(model: Any, prompts: Sequence[Sequence[int]], words: Sequence[Sequence[int]], tokenizer: Any) -> Tensor:
    """[prompts, words] sums of the log-probabilities of a word's tokens after a prompt.

    Words that differ in their last token only share one sequence, so words of one token cost one sequence per prompt.
    """
    paths, place = shared_paths(words)
    longest = max(map(len, words))
    table = torch.tensor([[*word, *[0] * (longest - len(word))] for word in words])
    there = torch.tensor([[True] * len(word) + [False] * (longest - len(word)) for word in words])
    flat = [([*prompt, *path], len(prompt)) for prompt in prompts for path in paths]
    size = max(len(prompts), TOGETHER)
    found = []
    for at in range(0, len(flat), size):
        part = flat[at : at + size]
        inputs = to_device(pad_ids([ids for ids, _ in part], tokenizer, "right"), model)
        with inference(model):
            logits = model(**inputs).logits
        steps = torch.tensor([length - 1 for _, length in part])[:, None] + torch.arange(longest)
        steps = steps.clamp(max=logits.shape[1] - 1).to(logits.device)
        asked = logits[torch.arange(len(part), device=logits.device)[:, None], steps].float().log_softmax(dim=-1)
        each = asked[:, torch.arange(longest), table]  # [sequences, words, tokens of a word]
        found.append(torch.where(there.to(each.device), each, 0).sum(dim=-1))
    everything = torch.cat(found).view(len(prompts), len(paths), len(words))
    return everything[:, place, torch.arange(len(words))]


def shared_paths(words: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[int]]:
    """What must be read to score all words: their tokens but the last, where not the beginning of a longer path; and
    for each word the number of its path."""
    before = [list(word[:-1]) for word in words]
    paths = [path for number, path in enumerate(before) if path not in before[:number]]
    paths = [path for path in paths if not any(begins(path, other) for other in paths if other != path)]
    return paths, [next(number for number, path in enumerate(paths) if begins(each, path)) for each in before]


def begins(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether `other` begins with `one`."""
    return list(other[: len(one)]) == list(one)


@lru_cache(maxsize=8)  # asked for with every row
def _tokens(words: tuple[str, ...], tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    start = text_ids("a", tokenizer)
    found: list[list[int]] = []
    for word in words:
        # Tokenized after something, so that tokenizers that put a space before every text put only one.
        ids = text_ids(f"a {word}", tokenizer)
        ids = ids[len(start) :] if begins(start, ids) else text_ids(f" {word}", tokenizer)
        if not ids:
            raise BadInput(f"verbalized: the tokenizer has no tokens for the word {word!r}.")
        if ids in found:
            raise BadInput(
                f"verbalized: the words {words[found.index(ids)]!r} and {word!r} are the same tokens here. "
                "Name the labels differently, or choose --task classification."
            )
        found.append(ids)
    ends = any(begins(one, other) for one in found for other in found if one is not other)
    return tuple((*ids, tokenizer.eos_token_id) if ends else tuple(ids) for ids in found)
