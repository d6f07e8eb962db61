"""Regression: a number for a text or a pair of texts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graft.data.encoding import encode_texts
from graft.data.losses import inference, to_device
from graft.data.task import Features, Record, Task, facts, short
from graft.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """The model learns (label - mean) / spread; predictions are given in the label's own unit."""

    kind: ClassVar[str] = "regression"
    head: ClassVar[str] = "AutoModelForSequenceClassification"
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    mean: float
    spread: float

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], tokenizer: Any, config: Any, max_length: int | None = None) -> Self:
        """Mean and standard deviation of the training labels."""
        labels = [float(row["label"]) for row in rows]
        if len(set(labels)) < 2:
            raise BadInput(f"regression needs different labels; all {len(labels)} are the same.")
        mean = math.fsum(labels) / len(labels)
        spread = math.sqrt(math.fsum((label - mean) ** 2 for label in labels) / len(labels))
        return cls(mean=mean, spread=spread, **facts(tokenizer, config, max_length))

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """`labels` is the label in the unit that is learned; NaN for a row without one."""
        encoded = encode_texts(row, tokenizer, self.max_length, self.token_types)
        label = row.get("label")
        return {**encoded, "labels": math.nan if label is None else (float(label) - self.mean) / self.spread}

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """As every task; labels are floats [B]."""
        batch = super().collate(features, tokenizer)
        return {**batch, "labels": batch["labels"].to(torch.float32)}

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`output`, the number; `loss`, the squared error in the unit that is learned (where the label is known)."""
        inputs = to_device(self.inputs(batch), model)
        labels = inputs.pop("labels")
        with inference(model):
            values = model(**inputs).logits.float().squeeze(-1)
        losses = ((values - labels) ** 2).tolist()
        return [
            {"item": item, "output": value * self.spread + self.mean} | ({} if math.isnan(loss) else {"loss": loss})
            for item, value, loss in zip(batch["item"].tolist(), values.tolist(), losses, strict=True)
        ]

    def reference(self, row: Mapping[str, Any]) -> float:
        """The row's label."""
        return float(row["label"])

    def input(self, row: Mapping[str, Any]) -> str:
        """The text, or both texts."""
        return short(" | ".join(row[name] for name in ("text", "text_pair") if name in row))

    def model_options(self) -> dict[str, Any]:
        """One output, trained on the squared error."""
        return {"num_labels": 1, "problem_type": "regression"}

    def masked(self, feature: Features) -> bool:
        """Whether there is no label."""
        return math.isnan(feature["labels"])

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """The text, then the label."""
        label = feature["labels"] * self.spread + self.mean
        text = tokenizer.decode(feature["input_ids"])
        return [(text, False), (" -> ", False), (f"{label:g}", not math.isnan(label))]
