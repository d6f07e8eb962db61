"""What a task is: how rows become features, features a batch, and a model's answer to a batch one record per row.

A task is a value: everything it learned from the training rows is a field, so it can be stored with an adapter.

    task = Classification.fit(rows, tokenizer, config)
    features = task.features(rows, tokenizer)              # plain lists, each with `item`, the index of its row
    batch = task.collate(features[:8], tokenizer)          # tensors; `task.inputs(batch)` is what the model takes
    records = task.predict(model, batch, tokenizer)        # one for each feature
    records = task.gather(records)                         # one for each row: long rows have several features
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from graft.data.padding import pad
from graft.errors import BadInput, Refused

Features = dict[str, Any]
Record = dict[str, Any]
LONGEST = 1024
SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Base of the tasks in `tasks/`, one file each.

    `kind`: its name, that of its file. `head`: the transformers Auto class. `metrics`: names, the headline first.
    `extras`: what a batch has beside the model's inputs. `max_length`: tokens of a feature at most. `token_types`:
    whether the model tells the first text of a pair from the second.
    """

    kind: ClassVar[str]
    head: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    extras: ClassVar[frozenset[str]] = frozenset({"item"})

    max_length: int
    token_types: bool = False

    @classmethod
    @abstractmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], tokenizer: Any, config: Any, max_length: int | None = None) -> Self:
        """Learn the facts from the training rows. `config` is the model's. Raises BadInput when rows do not serve."""

    @abstractmethod
    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """One feature of a row, as lists; labels are -100 where nothing is trained. A row may lack its answer."""

    def windows(self, row: Mapping[str, Any], tokenizer: Any) -> list[Features]:
        """All features of a row: one, unless the task divides long rows."""
        return [self.encode(row, tokenizer)]

    def features(self, rows: Sequence[Mapping[str, Any]], tokenizer: Any, train: bool = False) -> list[Features]:
        """The features of all rows, each with `item`, and with `task` where the row names one.

        With `train`, what only prediction needs may be left out.
        """
        return [{**feature, "item": item, **task_of(row)} for item, row in enumerate(rows)
                for feature in self.windows(row, tokenizer)]  # fmt: skip

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """Features as tensors [B, T], padded to the longest on the tokenizer's side."""
        return pad(features, tokenizer, tokenizer.padding_side)

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The part of a batch that the model's forward takes, labels included."""
        return {name: value for name, value in batch.items() if name not in self.extras | {"task"}}

    @abstractmethod
    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """A record for each feature: `item`, `output`, and what the metrics need. No gradients; evaluation mode."""

    def gather(self, records: Sequence[Record]) -> list[Record]:
        """One record for each row, in the order of the rows."""
        return sorted(records, key=lambda record: record["item"])

    @abstractmethod
    def reference(self, row: Mapping[str, Any]) -> Any:
        """The right answer, or the list of right answers, as the metrics take it."""

    @abstractmethod
    def input(self, row: Mapping[str, Any]) -> str:
        """What the model is asked, as a short readable text."""

    def auto(self, config: Any) -> str:
        """The name of the transformers Auto class that makes the model. Raises Refused when there is none for it."""
        return checked_head(self.head, config, self.kind)

    def model_options(self) -> dict[str, Any]:
        """Options for the Auto class's `from_pretrained` or `from_config`, such as the number of labels."""
        return {}

    def segments(self, feature: Features, tokenizer: Any) -> list[tuple[str, bool]]:
        """A feature as pieces of text, each with whether it is trained; for `show_mask`."""
        trained = [label != -100 for label in feature["labels"]]
        return runs(feature["input_ids"], trained, tokenizer)

    def masked(self, feature: Features) -> bool:
        """Whether nothing of a feature is trained."""
        labels = feature["labels"]
        return all(label == -100 for label in labels) if isinstance(labels, list) else labels == -100

    def known(self) -> tuple[str, ...]:
        """The labels or tags that training rows had; empty for tasks without."""
        return ()

    def unseen(self, row: Mapping[str, Any]) -> list[str]:
        """The labels or tags of a row that training rows did not have."""
        return []

    def as_dict(self) -> dict[str, Any]:
        """The task as JSON values; `graft.data.tasks.from_dict` reads it back."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


def task_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Which of several tasks a row belongs to, where it says so."""
    return {"task": row["task"]} if isinstance(row.get("task"), str) else {}


def runs(ids: Sequence[int], trained: Sequence[bool], tokenizer: Any) -> list[tuple[str, bool]]:
    """Neighboring tokens of one kind decoded together: byte-level tokens alone may be no text."""
    pieces: list[tuple[list[int], bool]] = []
    for token, mark in zip(ids, trained, strict=True):
        if not pieces or pieces[-1][1] != mark:
            pieces.append(([], mark))
        pieces[-1][0].append(token)
    return [(tokenizer.decode(part, clean_up_tokenization_spaces=False), mark) for part, mark in pieces]


def short(text: str) -> str:
    """One line of at most 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def facts(tokenizer: Any, config: Any, max_length: int | None) -> dict[str, Any]:
    """The fields that every task has: the length limit and whether the model knows token types."""
    if not tokenizer.is_fast:
        raise BadInput(f"the tokenizer {type(tokenizer).__name__} gives no offsets; use the model's fast tokenizer.")
    kinds = getattr(config.get_text_config(), "type_vocab_size", 0) or 0
    return {"max_length": length_limit(tokenizer, config, max_length), "token_types": kinds > 1}


def length_limit(tokenizer: Any, config: Any, asked: int | None) -> int:
    """Tokens of a feature: as asked, or what tokenizer and model take, at most 1024.

    The model's positions count in steps of 8: RoBERTa's 514 are 512 that can be used. Raises BadInput when more is
    asked than the model has positions for.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (positions and max(positions // 8 * 8, 1), tokenizer.model_max_length) if limit]
    longest = min(limits)
    if asked is None:
        return int(min(longest, LONGEST))
    if asked < 8:
        raise BadInput(f"max_length: {asked} leaves no room for a row; give at least 8.")
    if positions and asked > positions:
        raise BadInput(f"max_length: {asked} is more than the {positions} positions of the model.")
    return asked


def checked_head(head: str, config: Any, kind: str) -> str:
    """`head`, when transformers has such a model for this config. Raises Refused otherwise."""
    import transformers

    known = type(config) in getattr(transformers, head)._model_mapping
    if not known:
        raise Refused(
            f"{kind}: transformers has no {head.removeprefix('AutoModelFor')} head for {type(config).__name__}. "
            "Choose a model that has one, or pose the task as text with --task generation and a --template."
        )
    return head
