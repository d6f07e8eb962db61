"""How well a model predicts the trained tokens of each row: summed negative log-likelihood, in nats."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graft.attach.mode import in_mode
from graft.data.padding import IGNORED

Record = dict[str, Any]


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """No gradients and evaluation mode; every module's own mode is restored."""
    with in_mode(model, training=False), torch.no_grad():
        yield


def to_device(inputs: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Inputs where the model's first parameter is."""
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in inputs.items()}


def answer_losses(model: Any, batch: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> list[Record]:
    """For each feature of a batch of text: `item`, `loss` (summed over trained tokens), `tokens`, `bytes`.

    `inputs` is the part of the batch for the model, with `labels` [B, T]: for causal models those of the same
    position (the model's shift is made here), for encoder-decoder models those of the decoder.
    """
    inputs = to_device(inputs, model)
    labels = inputs["labels"]
    with inference(model):
        if model.config.is_encoder_decoder:
            logits = model(**inputs).logits
        else:
            logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits[:, :-1]
            labels = labels[:, 1:]
        trained = labels != IGNORED
        losses = cross_entropy(logits[trained].float(), labels[trained], reduction="none")
    rows = trained.nonzero()[:, 0]
    sums = torch.zeros(len(labels), dtype=torch.float64, device=losses.device).index_add(0, rows, losses.double())
    counts = trained.sum(dim=1)
    return [
        {"item": item, "loss": loss, "tokens": tokens, "bytes": size}
        for item, loss, tokens, size in zip(
            batch["item"].tolist(), sums.tolist(), counts.tolist(), batch["bytes"].tolist(), strict=True
        )
    ]
