"""How well a model predicts text: loss per token, perplexity, bits per byte. Lower is better.

Records hold "loss" (summed negative log-likelihood in nats), "tokens" and "bytes" of what was predicted; items weigh by
their length. Tokens depend on the tokenizer: only bits per byte compares models with different ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.metrics import _record
from graft.metrics._metric import Array, Record, Summed, rows

LARGEST = 700.0  # nats per token beyond which exp() leaves the range of a float


@dataclass(frozen=True, kw_only=True)
class Loss(Summed):
    """Loss per token in nats, or its exponential, or its bits per byte. A row is (loss, length)."""

    length: str = "tokens"
    perplexity: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)
    higher_is_better: bool = False
    tolerance: float = 0.01

    def statistics(self, records: Sequence[Record]) -> Array:
        losses = _record.read(self.name, records, "loss", _record.number)
        lengths = _record.read(self.name, records, self.length, _record.count)
        return rows(list(zip(losses, lengths, strict=True)), 2)

    def finish(self, sums: Array) -> Array:
        nats = np.where(sums[:, 1] > 0, sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], 1), np.nan)
        if self.perplexity:
            return np.asarray(np.exp(np.where(nats < LARGEST, nats, np.nan)))
        return nats / np.log(2) if self.length == "bytes" else nats

    def why(self, statistics: Array) -> str:
        if statistics[:, 1].sum() == 0:
            return f"no item has any {self.length}"
        return f"the loss is above {LARGEST:.0f} nats per token, too large for a perplexity"


METRICS = (
    Loss(name="loss", title="loss per token", unit="nats/token"),
    Loss(name="perplexity", title="perplexity", unit="per token", perplexity=True, tolerance=0.1),
    Loss(name="bits_per_byte", title="bits per byte", unit="bits/byte", length="bytes"),
)
