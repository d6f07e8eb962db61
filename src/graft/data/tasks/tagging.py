"""Tagging: a label for each word of a text, read from the word's first token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from graft.data.encoding import model_inputs
from graft.data.losses import inference, to_device
from graft.data.padding import IGNORED
from graft.data.task import Features, Record, Task, facts, short
from graft.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Tagging(Task):
    """One of `tags` for each word. Words without a token (cut off, or only characters that the tokenizer drops) get
    `O`, or the most frequent tag where there is no `O`."""

    kind: ClassVar[str] = "tagging"
    head: ClassVar[str] = "AutoModelForTokenClassification"
    metrics: ClassVar[tuple[str, ...]] = ("entity_f1",)
    extras: ClassVar[frozenset[str]] = frozenset({"item", "word", "words", "cut"})

    tags: tuple[str, ...]
    outside: str

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], tokenizer: Any, config: Any, max_length: int | None = None) -> Self:
        """The tags of the training rows: `O` first, then by the alphabet, whole numbers by size."""
        counts: dict[str, int] = {}
        for row in rows:
            for tag in row["tags"]:
                counts[tag] = counts.get(tag, 0) + 1
        if len(counts) < 2:
            raise BadInput(f"tagging needs at least two tags; there is only {', '.join(counts)!r}.")
        tags = sorted(counts, key=lambda tag: (tag != "O", int(tag) if tag.isdecimal() else -1, tag))
        outside = "O" if "O" in counts else max(counts, key=lambda tag: counts[tag])
        return cls(tags=tuple(tags), outside=outside, **facts(tokenizer, config, max_length))

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """Words joined by spaces; `word` [T] is the word whose first token this is, or -1; `words` their number.

        `cut` tells that words at the end lie beyond the length limit.
        """
        text, spans = _joined(row["tokens"])
        encoded = tokenizer(
            text, truncation=True, max_length=self.max_length, return_offsets_mapping=True,
            return_token_type_ids=self.token_types, verbose=False,
        )  # fmt: skip
        word = [-1] * len(encoded["input_ids"])
        number = 0
        for position, (start, end) in enumerate(encoded["offset_mapping"]):
            while number < len(spans) and spans[number][1] <= start:
                number += 1
            if number < len(spans) and start < end and end > spans[number][0]:
                word[position] = number
                number += 1
        tags = row.get("tags")
        known = {tag: index for index, tag in enumerate(self.tags)}
        labels = [known.get(tags[at], IGNORED) if tags is not None and at >= 0 else IGNORED for at in word]
        full = len(encoded["input_ids"]) >= self.max_length
        reached = max((end for _, end in encoded["offset_mapping"]), default=0)
        extra = {"word": word, "words": len(spans), "cut": full and reached <= spans[-1][0]}
        return {**model_inputs(encoded, self.token_types), "labels": labels, **extra}

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`output`, a tag for each word; `loss`, summed over the words whose tag is known."""
        inputs = to_device(self.inputs(batch), model)
        labels = inputs.pop("labels")
        with inference(model):
            logits = model(**inputs).logits.float()
        best = logits.argmax(dim=-1).tolist()
        chances = logits.log_softmax(dim=-1)
        losses = -chances.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != IGNORED)
        records = []
        for row, (item, words) in enumerate(zip(batch["item"].tolist(), batch["words"].tolist(), strict=True)):
            output = [self.outside] * words
            for position, word in enumerate(batch["word"][row].tolist()):
                if word >= 0:
                    output[word] = self.tags[best[row][position]]
            records.append({"item": item, "output": output, "loss": losses[row].sum().item()})
        return records

    def reference(self, row: Mapping[str, Any]) -> list[str]:
        """The row's tags."""
        return list(row["tags"])

    def input(self, row: Mapping[str, Any]) -> str:
        """The words with spaces between."""
        return short(" ".join(row["tokens"]))

    def known(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags

    def unseen(self, row: Mapping[str, Any]) -> list[str]:
        """The row's tags that training rows did not have."""
        return sorted(set(row.get("tags", ())) - set(self.tags))

    def model_options(self) -> dict[str, Any]:
        """The number and the names of the tags."""
        return {
            "num_labels": len(self.tags),
            "id2label": dict(enumerate(self.tags)),
            "label2id": {tag: number for number, tag in enumerate(self.tags)},
        }

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """Each trained token with its tag."""
        pieces = []
        for token, label in zip(feature["input_ids"], feature["labels"], strict=True):
            text = tokenizer.decode([token])
            pieces.append((f"{text}/{self.tags[label]}" if label != IGNORED else text, label != IGNORED))
            pieces.append((" ", False))
        return pieces


def _joined(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The words with spaces between, and where each starts and ends."""
    spans, at = [], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), spans
