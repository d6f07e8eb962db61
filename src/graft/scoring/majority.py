"""The least that a classifier must beat: always answering the label that training rows have most often."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from graft.data.task import Record, Task


def majority(
    task: Task, train: Sequence[Mapping[str, Any]], records: Sequence[Record]
) -> tuple[str, list[Record]] | None:
    """The most frequent label of the training rows and the records of always giving it; None for tasks without labels.

    `records`: those of any system on the rows to score, for their items and references.
    """
    if task.kind != "classification" or not train:
        return None
    label = Counter(str(row["label"]) for row in train).most_common(1)[0][0]
    return label, [{"item": r["item"], "reference": r["reference"], "output": label} for r in records]
