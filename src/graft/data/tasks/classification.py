"""Classification of a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch.nn.functional import cross_entropy

from graft.data.encoding import encode_texts
from graft.data.labels import in_order
from graft.data.losses import inference, to_device
from graft.data.padding import IGNORED
from graft.data.task import Features, Record, Task, facts, short
from graft.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One of `labels` for each row; their order is that of the model's outputs."""

    kind: ClassVar[str] = "classification"
    head: ClassVar[str] = "AutoModelForSequenceClassification"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "matthews", "calibration_error")

    labels: tuple[str, ...]

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], tokenizer: Any, config: Any, max_length: int | None = None) -> Self:
        """The labels of the training rows: by number where the data numbers them, else by the alphabet."""
        labels = in_order(rows)
        if len(labels) < 2:
            raise BadInput(f"classification needs rows of at least two classes; there is only {', '.join(labels)!r}.")
        return cls(labels=labels, **facts(tokenizer, config, max_length))

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """`labels` is the index of the row's label, -100 when it has none or one that training did not see."""
        encoded = encode_texts(row, tokenizer, self.max_length, self.token_types)
        label = row.get("label")
        return {**encoded, "labels": self.labels.index(label) if label in self.labels else IGNORED}

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`output` the likeliest label, `probabilities` of all, `loss` of the right one (where it is known)."""
        inputs = to_device(self.inputs(batch), model)
        labels = inputs.pop("labels")
        with inference(model):
            logits = model(**inputs).logits.float()
        losses = cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED).tolist()
        probabilities = logits.softmax(dim=-1).tolist()
        return [
            {"item": item, "output": self.labels[best], "probabilities": chances}
            | ({"loss": loss} if label != IGNORED else {})
            for item, best, chances, loss, label in zip(
                batch["item"].tolist(), logits.argmax(dim=-1).tolist(), probabilities, losses, labels.tolist(),
                strict=True,
            )
        ]  # fmt: skip

    def reference(self, row: Mapping[str, Any]) -> str:
        """The row's label."""
        return str(row["label"])

    def input(self, row: Mapping[str, Any]) -> str:
        """The text, or both texts."""
        return short(" | ".join(row[name] for name in ("text", "text_pair") if name in row))

    def known(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    def unseen(self, row: Mapping[str, Any]) -> list[str]:
        """The row's label, when training rows did not have it."""
        return [label] if (label := row.get("label")) is not None and label not in self.labels else []

    def model_options(self) -> dict[str, Any]:
        """The number and the names of the labels."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "problem_type": "single_label_classification",
        }

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """The text, then the label."""
        label = "(no label)" if feature["labels"] == IGNORED else self.labels[feature["labels"]]
        return [(tokenizer.decode(feature["input_ids"]), False), (" -> ", False), (label, feature["labels"] != IGNORED)]
