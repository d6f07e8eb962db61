"""Text from a prompt, for causal and for encoder-decoder models. Only the answer is trained, its end included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from graft.data.answering import Answered, prompts_of
from graft.data.encoding import answer_ids, prompt_ids, target_ids
from graft.data.padding import IGNORED, pad
from graft.data.task import Features, Record, checked_head, runs, short
from graft.data.templates import DEFAULT, columns_of, render


@dataclass(frozen=True, kw_only=True)
class Generation(Answered):
    """A causal model reads prompt, separator and answer; an encoder reads the prompt and a decoder writes the answer.

    `template` makes the prompt from a row. Too long a prompt loses its beginning in causal models, its end in encoders.
    """

    kind: ClassVar[str] = "generation"
    metrics: ClassVar[tuple[str, ...]] = (
        "rougeL", "rouge1", "rouge2", "rougeLsum", "bleu", "chrf", "ter", "exact_match", "loss", "perplexity",
    )  # fmt: skip

    separator: str
    encoder_decoder: bool

    @classmethod
    def fit(
        cls,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        config: Any,
        max_length: int | None = None,
        template: str | None = None,
        separator: str | None = None,
        max_new_tokens: int | None = None,
    ) -> Self:
        """`separator` stands between prompt and answer: a line feed, for encoder-decoder models nothing."""
        references = [text for row in rows if (text := row.get("completion"))]
        learned = cls.learned(references, tokenizer, config, max_length, max_new_tokens)
        template = template or DEFAULT
        columns_of(template)
        joint = bool(config.is_encoder_decoder)
        return cls(
            template=template,
            separator=separator if separator is not None else "" if joint else "\n",
            encoder_decoder=joint,
            **learned,
        )

    def prompt(self, row: Mapping[str, Any]) -> str:
        """The text that the model goes on from."""
        return render(self.template, row) + self.separator

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """Ids and labels; `cut` tells that the answer did not fit, `bytes` is the answer's size in UTF-8.

        Prompt and answer are tokenized apart, so that the prompt's tokens are those that generation starts from.
        """
        answer = row.get("completion")
        size = {"bytes": len(answer.encode("utf-8", "surrogatepass")) if answer is not None else 0}
        if self.encoder_decoder:
            ids = tokenizer(self.prompt(row), truncation=True, max_length=self.max_length, verbose=False)["input_ids"]
            target = [] if answer is None else target_ids(answer, tokenizer)
            cut = len(target) > self.max_length
            labels = target[: self.max_length] or [IGNORED]
            return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels, "cut": cut, **size}
        start, rest = prompt_ids(self.prompt(row), tokenizer)
        target = [] if answer is None else answer_ids(answer, tokenizer)
        # At least one token stays before the answer: its first token is predicted from it.
        room = max(self.max_length - max(len(target), self.max_new_tokens) - len(start), 0 if start else 1)
        prompt = start + rest[max(len(rest) - room, 0) :]
        kept = target[: self.max_length - len(prompt)]
        ids = prompt + kept
        labels = [IGNORED] * len(prompt) + kept
        cut = len(kept) < len(target)
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels, "cut": cut, **size}

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """Padded on the right for causal models, whatever the tokenizer's side: positions then count from 0."""
        return pad(features, tokenizer, tokenizer.padding_side if self.encoder_decoder else "right")

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`output`, the greedy answer; `loss`, `tokens` and `bytes` of the right answer."""
        if self.encoder_decoder:
            masks = batch["attention_mask"].bool()
            prompts = [ids[mask].tolist() for ids, mask in zip(batch["input_ids"], masks, strict=True)]
        else:
            prompts = prompts_of(batch)
        return self.written(model, batch, prompts, tokenizer)

    def reference(self, row: Mapping[str, Any]) -> list[str]:
        """All right answers."""
        return list(row["references"]) if row.get("references") else [row["completion"]]

    def input(self, row: Mapping[str, Any]) -> str:
        """The prompt as the model gets it."""
        return short(self.prompt(row))

    def auto(self, config: Any) -> str:
        """By whether the model is an encoder-decoder."""
        return checked_head("AutoModelForSeq2SeqLM" if config.is_encoder_decoder else self.head, config, self.kind)

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """The prompt, then the answer."""
        if not self.encoder_decoder:
            return super().segments(feature, tokenizer)
        prompt = tokenizer.decode(feature["input_ids"], clean_up_tokenization_spaces=False)
        labels = [label for label in feature["labels"] if label != IGNORED]
        return [(prompt, False), (" -> ", False), *runs(labels, [True] * len(labels), tokenizer)]
