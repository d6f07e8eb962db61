"""Multiple choice: which of several texts goes with a question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graft.data.encoding import encode_texts
from graft.data.losses import inference, to_device
from graft.data.padding import IGNORED, pad
from graft.data.task import Features, Record, Task, facts, short


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """Each choice is read together with the question and gets a score; the answer is an index.

    Rows with fewer choices than others are filled up with empty ones, which are never predicted.
    """

    kind: ClassVar[str] = "multiple_choice"
    head: ClassVar[str] = "AutoModelForMultipleChoice"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "calibration_error")
    extras: ClassVar[frozenset[str]] = frozenset({"item", "choices"})

    choices: int

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], tokenizer: Any, config: Any, max_length: int | None = None) -> Self:
        """`choices` is the largest number of choices of a row."""
        return cls(choices=max(len(row["choices"]) for row in rows), **facts(tokenizer, config, max_length))

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """Lists with one entry for each choice; `labels` the index of the right one, -100 when there is none."""
        count = max(self.choices, len(row["choices"]))
        texts = [*row["choices"], *[""] * (count - len(row["choices"]))]
        encoded = [
            encode_texts({"text": row["question"], "text_pair": text}, tokenizer, self.max_length, self.token_types)
            for text in texts
        ]
        answer = row.get("answer")
        features: Features = {name: [choice[name] for choice in encoded] for name in encoded[0]}
        return {**features, "labels": IGNORED if answer is None else answer, "choices": len(row["choices"])}

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """Inputs [B, C, T], padded on the tokenizer's side."""
        names = [name for name, value in features[0].items() if isinstance(value, list)]
        count = max(len(feature["input_ids"]) for feature in features)
        blank = {"input_ids": [tokenizer.pad_token_id], "attention_mask": [1], "token_type_ids": [0]}
        flat = []
        for feature in features:
            for at in range(count):
                here = at < len(feature["input_ids"])
                flat.append({name: feature[name][at] if here else blank[name] for name in names})
        padded = pad(flat, tokenizer, tokenizer.padding_side)
        batch = {name: value.view(len(features), count, -1) for name, value in padded.items()}
        rest = [{name: value for name, value in feature.items() if name not in names} for feature in features]
        return batch | pad(rest, tokenizer, tokenizer.padding_side)

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`output`, the index of the best choice; `probabilities` of the row's choices; `loss` of the right one."""
        inputs = to_device(self.inputs(batch), model)
        labels = inputs.pop("labels")
        with inference(model):
            logits = model(**inputs).logits.float()
        counts = batch["choices"].to(logits.device)
        beyond = torch.arange(logits.shape[1], device=logits.device)[None, :] >= counts[:, None]
        logits = logits.masked_fill(beyond, -torch.inf)
        losses = cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED).tolist()
        chances = logits.softmax(dim=-1).tolist()
        return [
            {"item": item, "output": best, "probabilities": chances[row][: counts[row]]}
            | ({"loss": losses[row]} if labels[row] != IGNORED else {})
            for row, (item, best) in enumerate(zip(batch["item"].tolist(), logits.argmax(-1).tolist(), strict=True))
        ]

    def reference(self, row: Mapping[str, Any]) -> int:
        """The index of the right choice."""
        return int(row["answer"])

    def input(self, row: Mapping[str, Any]) -> str:
        """The question and the numbered choices."""
        return short(row["question"] + "".join(f" ({at}) {choice}" for at, choice in enumerate(row["choices"])))

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """Every choice on a line of its own, the right one marked."""
        pieces = []
        for at, ids in enumerate(feature["input_ids"][: feature["choices"]]):
            pieces += [(tokenizer.decode(ids), at == feature["labels"]), ("\n", False)]
        return pieces
