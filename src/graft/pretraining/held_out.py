"""How well a model predicts text it was not trained on."""

import math
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from graft.errors import BadInput
from graft.pretraining.batches import Batches
from graft.pretraining.loop import arithmetic


@dataclass(frozen=True)
class HeldOut:
    """Loss in nats per predicted token, over `tokens` of them; of causal models also bits per byte of text."""

    loss: float
    tokens: int
    bits_per_byte: float | None

    @property
    def perplexity(self) -> float:
        """e to the loss."""
        return math.exp(self.loss)


def measure(model: PreTrainedModel, batches: Batches, size: int, bf16: bool = True, most: int | None = None) -> HeldOut:
    """The loss over the windows of `batches`, in a seeded order, or over the first `most` tokens.

    size: bytes of text that all the tokens stand for, with which loss per token becomes bits per byte.
    Raises BadInput when the text is shorter than one window.
    """
    if not batches.windows:
        raise BadInput(
            f"the held-out text has {len(batches.tokens)} tokens, "
            f"fewer than one row of {batches.length}. Hold out more."
        )
    total, count = 0.0, 0
    windows = batches.windows if most is None else max(1, min(batches.windows, most // batches.length))
    batches = replace(batches, rows=min(batches.rows, windows))
    model.eval()
    with torch.no_grad(), arithmetic(model, bf16):
        for step in range(windows // batches.rows):
            batch = {name: value.to(model.device) for name, value in batches.at(step).items()}
            asked = batch["labels"][:, 1:] if batches.shape == "decoder" else batch["labels"]
            number = int((asked != -100).sum())
            total += model(**batch).loss.item() * number
            count += number
    model.train()
    loss = total / count
    per_byte = loss / math.log(2) * len(batches.tokens) / size if batches.objective == "causal" else None
    return HeldOut(loss, count, per_byte)
