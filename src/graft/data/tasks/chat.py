"""Chat: every turn of the assistant is trained, as the tokenizer's own chat template writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from graft.data.answering import Answered, prompts_of
from graft.data.padding import IGNORED, pad
from graft.data.task import Features, Record, short
from graft.data.turns import FALLBACK, assistant_spans, end_marker, rendered
from graft.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Chat(Answered):
    """`template` is the tokenizer's chat template, or a plain one where it has none (`graft.data.turns.FALLBACK`).

    A conversation that is too long loses its beginning. At least `max_new_tokens` are kept free for the last answer.
    """

    kind: ClassVar[str] = "chat"
    metrics: ClassVar[tuple[str, ...]] = ("rougeL", "rouge1", "rouge2", "bleu", "chrf", "exact_match", "loss",
                                          "perplexity")  # fmt: skip

    @classmethod
    def fit(
        cls,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        config: Any,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
    ) -> Self:
        """The template, and the room that the last answers need."""
        last = [text for row in rows if (text := row["messages"][-1]["content"])]
        learned = cls.learned(last, tokenizer, config, max_length, max_new_tokens)
        return cls(template=tokenizer.get_chat_template() if tokenizer.chat_template else FALLBACK, **learned)

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """The conversation as the template writes it. `labels` has the assistant's turns, each with its end mark.

        Messages that end with the user's are a question: nothing is trained and the assistant's turn is opened.
        """
        messages = row["messages"]
        asked = messages[-1]["role"] != "assistant"
        text = rendered(messages, tokenizer, self.template, opened=asked)
        spans = [] if asked else assistant_spans(messages, text, tokenizer, self.template)
        # Nothing after the last answer's end mark is ever written by the model.
        text = text[: spans[-1][1]] if spans else text
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        labels = [
            token if any(left <= start < right for left, right in spans) else IGNORED
            for token, (start, _) in zip(ids, offsets, strict=True)
        ]
        if spans and not end_marker(tokenizer, self.template):
            # A template that writes nothing after an answer: the end token says when to stop.
            ids, labels = [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]
        size = sum(len(text[left:right].encode("utf-8", "surrogatepass")) for left, right in spans)
        return {**self._fitted(ids, labels), "bytes": size}

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """Padded on the right, whatever the tokenizer's side: positions then count from 0."""
        return pad(features, tokenizer, "right")

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`output`, the greedy answer in place of the last one; `loss`, `tokens`, `bytes` of all trained turns."""
        stops = tokenizer(end_marker(tokenizer, self.template).strip(), add_special_tokens=False)["input_ids"]
        special = [stop for stop in stops if stop in tokenizer.all_special_ids]
        return self.written(model, batch, prompts_of(batch), tokenizer, special)

    def reference(self, row: Mapping[str, Any]) -> list[str]:
        """The assistant's last message, and other right ones where the row has them."""
        return [row["messages"][-1]["content"], *row.get("references", [])]

    def input(self, row: Mapping[str, Any]) -> str:
        """The last message before the assistant's."""
        before = [message for message in row["messages"] if message["role"] != "assistant"]
        return short(before[-1]["content"]) if before else ""

    def auto(self, config: Any) -> str:
        """Causal models only."""
        if config.is_encoder_decoder:
            raise Refused("chat is for causal models; for an encoder-decoder model add --task generation.")
        return super().auto(config)

    def _fitted(self, ids: list[int], labels: list[int]) -> Features:
        """The end of the conversation, as much as fits; an answer longer than that is cut at its own end."""
        trained = [label != IGNORED for label in labels]
        last = len(ids)
        if any(trained):
            last = end = len(trained) - trained[::-1].index(True)
            while last > 0 and trained[last - 1]:
                last -= 1
            ids, labels = ids[:end], labels[:end]
        begin = max(len(ids) - self.max_length, last - (self.max_length - self.max_new_tokens), 0)
        begin = min(begin, max(last - 1, 0))
        cut = len(ids) - begin > self.max_length
        ids, labels = ids[begin : begin + self.max_length], labels[begin : begin + self.max_length]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels, "cut": cut}
