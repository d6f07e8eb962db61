"""Windows of a token file in a seeded order, made into the arrays a model of each kind takes."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from graft.pretraining.objectives import BY_NAME, IGNORED, Example, Marks, Objective

Shape = Literal["decoder", "encoder", "encoder-decoder"]


@dataclass(frozen=True)
class Batches:
    """Step n's batch is a function of the seed and n alone: nothing has to be stored to go on from a checkpoint.

    tokens: flat array of ids, (total,). length: tokens of a window. rows: windows in a batch.
    """

    tokens: np.ndarray
    length: int
    rows: int
    objective: Objective
    shape: Shape
    marks: Marks
    pad: int
    seed: int = 0

    @property
    def windows(self) -> int:
        """How many windows an epoch has."""
        return len(self.tokens) // self.length

    def at(self, step: int, count: int | None = None) -> dict[str, torch.Tensor]:
        """The batch of a step, of `count` rows (default `rows`): each epoch shuffles anew and shifts the windows."""
        rows = [self._row(step * self.rows + row) for row in range(count or self.rows)]
        return collate(rows, self.shape, self.pad)

    def _row(self, number: int) -> Example:
        epoch, place = divmod(number, self.windows)
        order, shift = _epoch(self.seed, epoch, len(self.tokens), self.length)
        start = int(order[place]) * self.length + shift
        window = np.array(self.tokens[start : start + self.length], dtype=np.int64)
        return BY_NAME[self.objective](window, self.marks, np.random.default_rng([self.seed, 1, number]))


@lru_cache(maxsize=4)  # asked for once per row; a run uses three kinds of batches at most
def _epoch(seed: int, epoch: int, total: int, length: int) -> tuple[np.ndarray, int]:
    """The order of an epoch's windows, and how many tokens in the first one starts."""
    random, windows = np.random.default_rng([seed, 0, epoch]), total // length
    shift = int(random.integers(total - windows * length + 1))
    return random.permutation(windows), shift


def window_for(objective: Objective, shape: Shape, length: int, sentinels: int) -> int:
    """The longest window whose example fits `length` tokens: sentinels, mode and end tokens take room of their own."""
    if objective in ("causal", "prefix", "masked"):
        return length
    rate, span = (0.5, 3.0) if objective == "mixture" else (0.15, 3.0)
    extra = 2 if objective == "mixture" else 1
    window = length
    while window > 2:
        marks = min(round(window * rate / span) + 1, sentinels)
        widest = window + 2 * marks + extra if shape == "decoder" else window + extra
        if widest <= length:
            break
        window -= 1
    return window


def collate(rows: list[Example], shape: Shape, pad: int) -> dict[str, torch.Tensor]:
    """Examples as model inputs, padded on the right.

    encoder: source and labels over it. encoder-decoder: source, and target as labels. decoder: source and target
    joined, labels on the target; where there is a source it is read in both directions, which takes a
    (batch, 1, length, length) mask that is added to the scores.
    """
    if shape == "encoder":
        ids, labels = _stack([row.source for row in rows], pad), _stack([row.target for row in rows], IGNORED)
        return {"input_ids": ids, "labels": labels, "attention_mask": (ids != pad).long()}
    if shape == "encoder-decoder":
        sources = [row.source for row in rows]
        mask = _stack([np.ones(len(source), np.int64) for source in sources], 0)
        return {
            "input_ids": _stack(sources, pad),
            "attention_mask": mask,
            "labels": _stack([r.target for r in rows], IGNORED),
        }
    ids = _stack([np.concatenate([row.source, row.target]) for row in rows], pad)
    labels = _stack([np.concatenate([np.full(len(row.source), IGNORED), row.target]) for row in rows], IGNORED)
    if not any(len(row.source) for row in rows):
        return {"input_ids": ids, "labels": labels}
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": prefix_mask([len(row.source) for row in rows], ids.shape[1]),
    }


def prefix_mask(sources: list[int], length: int) -> torch.Tensor:
    """(batch, 1, length, length): 0 where a query may look (the source, and what is before), else the least float."""
    position = torch.arange(length)
    before = position[None, :] <= position[:, None]
    visible = before[None] | (position[None, None, :] < torch.tensor(sources)[:, None, None])
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min)[:, None]


def _stack(rows: list[np.ndarray], filler: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.from_numpy(
        np.stack([np.pad(row.astype(np.int64), (0, width - len(row)), constant_values=filler) for row in rows])
    )
