"""Language modeling: text packed into blocks for training, row by row in windows for evaluation. Causal models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from graft.data.encoding import text_ids
from graft.data.losses import answer_losses
from graft.data.padding import IGNORED, pad
from graft.data.task import Features, Record, Task, facts, short, task_of
from graft.data.tasks_of_rows import grouped
from graft.errors import BadInput, Refused


@dataclass(frozen=True, kw_only=True)
class LanguageModeling(Task):
    """Every token of a text is trained, and its end. A text begins with the start token, or the end token where the
    tokenizer has no start token, so that its first token is predicted too."""

    kind: ClassVar[str] = "language_modeling"
    head: ClassVar[str] = "AutoModelForCausalLM"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "loss", "bits_per_byte")
    extras: ClassVar[frozenset[str]] = frozenset({"item", "bytes"})

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], tokenizer: Any, config: Any, max_length: int | None = None) -> Self:
        """Blocks are as long as the model takes, at most 1024 tokens, unless `max_length` says otherwise."""
        if tokenizer.eos_token_id is None:
            raise BadInput("language_modeling: the tokenizer has no end token to put between texts.")
        return cls(**facts(tokenizer, config, max_length))

    def encode(self, row: Mapping[str, Any], tokenizer: Any) -> Features:
        """The first window of the row."""
        return self.windows(row, tokenizer)[0]

    def windows(self, row: Mapping[str, Any], tokenizer: Any) -> list[Features]:
        """The row in windows in which every token is predicted exactly once; the row's `bytes` are at the first."""
        windows = self._blocks(_document(row["text"], tokenizer))
        size = len(row["text"].encode("utf-8", "surrogatepass"))
        return [{**window, "bytes": 0 if number else size} for number, window in enumerate(windows)]

    def features(self, rows: Sequence[Mapping[str, Any]], tokenizer: Any, train: bool = False) -> list[Features]:
        """With `train`, all rows in one stream cut into full blocks, or in one for each task that they name; `item` is
        the row in which a block begins."""
        if not train:
            return super().features(rows, tokenizer)
        numbered = [{"item": item, "row": row, **task_of(row)} for item, row in enumerate(rows)]
        return [block for part in grouped(numbered).values() for block in self._stream(part, tokenizer)]

    def _stream(self, rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[Features]:
        """The blocks of the rows of one task."""
        stream: list[int] = []
        begins: list[int] = []
        for each in rows:
            item, row = each["item"], each["row"]
            ids = _document(row["text"], tokenizer)
            # An end token that also starts texts is written once between two of them.
            ids = ids[1:] if stream[-1:] == ids[:1] else ids
            stream += ids
            begins += [item] * len(ids)
        blocks = self._blocks(stream)
        step = self.max_length - 1
        same = task_of(rows[0])
        return [{**block, "bytes": 0, "item": begins[number * step], **same} for number, block in enumerate(blocks)]

    def collate(self, features: Sequence[Features], tokenizer: Any) -> dict[str, Tensor]:
        """Padded on the right, whatever the tokenizer's side: positions then count from 0."""
        return pad(features, tokenizer, "right")

    def predict(self, model: Any, batch: Mapping[str, Any], tokenizer: Any) -> list[Record]:
        """`loss` summed over the tokens of the window, `tokens`, `bytes`."""
        return answer_losses(model, batch, self.inputs(batch))

    def gather(self, records: Sequence[Record]) -> list[Record]:
        """The windows of a row, summed."""
        rows: dict[int, Record] = {}
        for record in records:
            total = rows.setdefault(record["item"], {"item": record["item"], "loss": 0.0, "tokens": 0, "bytes": 0})
            for name in ("loss", "tokens", "bytes"):
                total[name] += record[name]
        return super().gather(list(rows.values()))

    def reference(self, row: Mapping[str, Any]) -> str:
        """The text itself."""
        return str(row["text"])

    def input(self, row: Mapping[str, Any]) -> str:
        """The beginning of the text."""
        return short(row["text"])

    def auto(self, config: Any) -> str:
        """Causal models only."""
        if config.is_encoder_decoder:
            raise Refused("language_modeling is for causal models; give an encoder-decoder model prompt,completion.")
        return super().auto(config)

    def _blocks(self, ids: list[int]) -> list[Features]:
        """Blocks that overlap by one token, whose label is left to the block before."""
        step = self.max_length - 1
        parts = [ids[at : at + self.max_length] for at in range(0, max(len(ids) - 1, 1), step)]
        return [
            {"input_ids": part, "attention_mask": [1] * len(part), "labels": [IGNORED, *part[1:]]} for part in parts
        ]


def _document(text: str, tokenizer: Any) -> list[int]:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [start, *text_ids(text, tokenizer), tokenizer.eos_token_id]
