"""Extractive question answering: the answer is a span of the context (Rajpurkar et al. 2016, arXiv 1606.05250)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graft.data.encoding import model_inputs, text_ids
from graft.data.losses import inference, to_device
from graft.data.padding import pad
from graft.data.task import Features, Record, Task, facts, short


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """The question and a window of the context; windows of a long context overlap by a quarter of the length.

    A window without the answer points at its first token. `longest_answer`: tokens of a predicted span at most.
    `unanswerable`: training rows had questions without an answer, so an empty answer may be predicted.
    """

    kind: ClassVar[str] = "question_answering"
    head: ClassVar[str] = "AutoModelForQuestionAnswering"
    metrics: ClassVar[tuple[str, ...]] = ("token_f1", "exact_match")
    extras: ClassVar[frozenset[str]] = frozenset({"item", "offsets", "context"})

    longest_answer: int
    unanswerable: bool

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], tokenizer: Any, config: Any, max_length: int | None = None) -> Self:
        """The longest answer that is needed (at least 16 tokens), and whether some questions have none."""
        texts = {answer["text"] for row in rows for answer in row["answers"]}
        longest = max((len(text_ids(text, tokenizer)) for text in sorted(texts, key=len)[-500:]), default=0)
        learned = facts(tokenizer, config, max_length)
        return cls(
            longest_answer=min(max(longest, 16), learned["max_length"]),
            unanswerable=any(not row["answers"] for row in rows),
            **learned,
        )

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """The first window that holds the answer, else the first window."""
        windows = self.windows(row, tokenizer)
        return next((window for window in windows if not self.masked(window)), windows[0])

    def windows(self, row: Mapping[str, Any], tokenizer: Any) -> list[Features]:
        """`start_positions` and `end_positions` are tokens; `offsets` [T, 2] characters of the context, else -1."""
        asked = text_ids(row["question"], tokenizer)[: self.max_length // 2]
        question = tokenizer.decode(asked) if len(asked) == self.max_length // 2 else row["question"]
        encoded = tokenizer(
            question, row["context"], truncation="only_second", max_length=self.max_length,
            stride=self.max_length // 4, return_overflowing_tokens=True, return_offsets_mapping=True,
            return_token_type_ids=self.token_types, verbose=False,
        )  # fmt: skip
        answer = row["answers"][0] if row.get("answers") else None
        windows = []
        for number in range(len(encoded["input_ids"])):
            sequence = encoded.sequence_ids(number)
            offsets = [
                list(span) if part == 1 and span[1] > span[0] else [-1, -1]
                for span, part in zip(encoded["offset_mapping"][number], sequence, strict=True)
            ]
            start, end = _span(offsets, answer)
            inputs = model_inputs({name: value[number] for name, value in encoded.items()}, self.token_types)
            labels = {"start_positions": start, "end_positions": end}
            windows.append({**inputs, **labels, "offsets": offsets, "context": row["context"]})
        return windows

    def features(self, rows: Sequence[Mapping[str, Any]], tokenizer: Any, train: bool = False) -> list[Features]:
        """With `train`, without `offsets` and `context`."""
        features = super().features(rows, tokenizer)
        if not train:
            return features
        left_out = ("offsets", "context")
        return [{name: value for name, value in feature.items() if name not in left_out} for feature in features]

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """As every task; `offsets` [B, T, 2], `context` a list of texts."""
        return pad(features, tokenizer, tokenizer.padding_side)

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """For each window the best span: `output`, its text in the context; `score`; `start`, `end` in characters;
        `null`, the score of no answer; `loss` where the position is known."""
        inputs = to_device(self.inputs(batch), model)
        starts, ends = inputs.pop("start_positions"), inputs.pop("end_positions")
        with inference(model):
            answer = model(**inputs)
        begin, finish = answer.start_logits.float(), answer.end_logits.float()
        losses = (cross_entropy(begin, starts, reduction="none") + cross_entropy(finish, ends, reduction="none")) / 2
        first = inputs["attention_mask"].argmax(dim=1, keepdim=True)
        null = (begin.gather(1, first) + finish.gather(1, first))[:, 0].tolist()
        score, begins, finishes = self._best(begin, finish, batch["offsets"].to(begin.device))
        records = []
        for row, item in enumerate(batch["item"].tolist()):
            left = int(batch["offsets"][row, begins[row], 0])
            right = int(batch["offsets"][row, finishes[row], 1])
            empty = left < 0 or (self.unanswerable and null[row] > score[row])
            text = "" if empty else batch["context"][row][left:right]
            best = {"output": text, "score": score[row], "null": null[row], "start": left, "end": right}
            records.append({"item": item, **best, "loss": losses[row].item()})
        return records

    def gather(self, records: Sequence[Record]) -> list[Record]:
        """The window with the best span; no answer only when that wins in every window."""
        rows: dict[int, Record] = {}
        for record in records:
            best = rows.get(record["item"])
            better = best is None or (bool(record["output"]), record["score"]) > (bool(best["output"]), best["score"])
            rows[record["item"]] = record if better else rows[record["item"]]
        return super().gather(list(rows.values()))

    def masked(self, feature: Features) -> bool:
        """Whether the window points at no answer."""
        return bool(feature["end_positions"] == 0)

    def reference(self, row: Mapping[str, Any]) -> list[str]:
        """All right answers; none when the question has no answer."""
        return [answer["text"] for answer in row["answers"]]

    def input(self, row: Mapping[str, Any]) -> str:
        """The question and the beginning of the context."""
        return short(f"{row['question']} | {row['context']}")

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """The window with the answer marked."""
        ids, start, end = feature["input_ids"], feature["start_positions"], feature["end_positions"]
        parts = [(ids[:start], False), (ids[start : end + 1], end > 0), (ids[end + 1 :], False)]
        return [(tokenizer.decode(part), mark) for part, mark in parts if part]

    def _best(self, begin: Tensor, finish: Tensor, offsets: Tensor) -> tuple[list[float], list[int], list[int]]:
        """The best pair of tokens of the context, start before end, at most `longest_answer` apart, for each row."""
        outside = offsets[..., 0] < 0
        length = begin.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=begin.device).triu().tril(self.longest_answer - 1)
        scores = begin.masked_fill(outside, -torch.inf)[:, :, None] + finish.masked_fill(outside, -torch.inf)[:, None]
        scores = scores.masked_fill(~allowed, -torch.inf).flatten(1)
        best, at = scores.max(dim=1)
        return best.tolist(), (at // length).tolist(), (at % length).tolist()


def _span(offsets: list[list[int]], answer: Mapping[str, Any] | None) -> tuple[int, int]:
    """First and last token of the answer, or (0, 0) when the window does not hold all of it."""
    if answer is None:
        return 0, 0
    left, right = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    inside = [at for at, (start, end) in enumerate(offsets) if start >= 0 and start < right and end > left]
    if not inside or offsets[inside[0]][0] > left or offsets[inside[-1]][1] < right:
        return 0, 0
    return inside[0], inside[-1]
