"""Room for a row: what virtual tokens leave of a model's learned positions, and which rows are longer than that."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from graft.attach.spot import require
from graft.data.task import Features, Task

LOOKED_AT = 1000  # rows, spread evenly, from which the share of cut ones is told
ENDLESS = 10**6  # tokens
DIVIDED = ("language_modeling", "question_answering")  # tasks that divide long rows and cut none


def positions_left(model: nn.Module, name: str) -> tuple[int, int] | None:
    """The tokens that a row may have beside the virtual ones of adapter `name`, and how many those are.

    Of the stack with the least room; None where the adapter has none, or positions are computed and have no end.
    """
    record = require(model, name)
    found = []
    for spot in record.spots.values():
        if spot.stack is not None and spot.room is not None and (added := sum(record.lengths(name, spot.stack.name))):
            found.append((spot.room - added, added))
    return min(found, default=None)


def longest(task: Task, rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> int:
    """Tokens of the longest sequence that the model sees of these rows, an encoder-decoder's answers included."""
    features = task.features(rows, tokenizer)
    return max((_longest(each.get(part)) for each in features for part in ("input_ids", "labels")), default=0)


def cut_rows(task: Task, rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> str | None:
    """A note with the share of rows that the task's length limit cuts; None where it cuts none."""
    looked = rows[:: max(1, len(rows) // LOOKED_AT)][:LOOKED_AT]
    if task.kind in DIVIDED or not looked:
        return None
    whole = replace(task, max_length=ENDLESS)
    cut = sum(_size(task.encode(row, tokenizer)) < _size(whole.encode(row, tokenizer)) for row in looked)
    if not cut:
        return None
    return (
        f"{cut / len(looked):.1%} of the train rows ({cut:,} of {len(looked):,} looked at) are longer than "
        f"{task.max_length} tokens and are cut; --length sets how long they may be"
    )


def _size(feature: Features) -> int:
    ids = feature["input_ids"]
    return sum(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)


def _longest(value: Any) -> int:
    if not isinstance(value, list):
        return 0
    return max(map(_longest, value)) if value and isinstance(value[0], list) else len(value)
