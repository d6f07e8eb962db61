"""Does an adapter do anything? Asked after training and after loading; an adapter that does not is an error."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from graft.attach.adapter import Adapter
from graft.attach.hooks import first_of
from graft.attach.spot import Grafted, Work, require
from graft.attach.use import use
from graft.errors import BadInput, NotApplied


def probe(model: nn.Module, name: str = "default", batch: Mapping[str, Tensor] | None = None) -> float:
    """The largest difference that adapter `name` makes to the output on a small batch, its task head apart.

    Of several tasks that it knows, as the first, where none is named.

    Raises NotApplied when it makes none, when its outputs are not finite, or when a site it asked for was not run.
    """
    record = require(model, name)
    adapter = record.adapters[name]
    inputs = dict(batch) if batch is not None else sample(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            record.watching[name] = set()
            with use(model, name, record.tasks or adapter.tasks[:1] or None), _without_head(record, adapter):
                ours = first_of(_run(model, inputs))
            reached = record.watching[name]
            with use(model, None):
                base = first_of(_run(model, inputs))
    finally:
        model.train(was_training)
    heads = {placed.site.path for placed in adapter.placed if placed.head and placed.site is not None}
    acting = {path for path, spot in record.spots.items() if name in spot.work and _acts(spot.work[name])}
    wanted = acting - heads
    if missed := sorted(wanted - reached):
        raise NotApplied(
            f"adapter {name!r} was never run at {', '.join(missed[:4])} ({len(missed)} of {len(wanted)} places)."
        )
    if bool(base.isfinite().all()) and not bool(ours.isfinite().all()):
        raise NotApplied(f"adapter {name!r} gives outputs that are not finite: training diverged. Train it anew.")
    ours = ours[:, -base.shape[1] :] if ours.dim() > 1 else ours  # virtual tokens may stay in front, as in PEFT
    difference = float((ours.float() - base.float()).abs().max())
    if difference == 0.0:
        raise NotApplied(
            f"adapter {name!r} ({type(adapter.method).__name__}) does not change the output at all: "
            "it was never trained, its weights did not load, or its scale is zero."
        )
    return difference


@contextmanager
def _without_head(record: Grafted, adapter: Adapter) -> Iterator[None]:
    """The method's own parts alone, where it has any: a head that trained would hide parts that did not."""
    heads = {p.site.path for p in adapter.placed if p.head and p.site is not None}
    if len(adapter.placed) == len(heads) and not adapter.trained:
        heads = set()
    works = {path: record.spots[path].work for path in heads}
    kept = {path: work.pop(adapter.name) for path, work in works.items() if adapter.name in work}
    try:
        yield
    finally:
        for path, work in kept.items():
            works[path][adapter.name] = work


def sample(model: Any) -> dict[str, Tensor]:
    """A small batch for a model of text, images or sound. Raises BadInput for models that read something else."""
    config, name = model.config, getattr(model, "main_input_name", "input_ids")
    device = next(model.parameters()).device
    shape = {
        "input_ids": lambda: (1, 0),
        "pixel_values": lambda: (1, config.num_channels, config.image_size, config.image_size),
        "input_values": lambda: (1, 4000),
        "input_features": lambda: (1, config.num_mel_bins, 2 * config.max_source_positions),
    }.get(name)
    if shape is None:
        raise BadInput(f"{type(model).__name__} reads {name}: pass a batch.")
    inputs = {name: torch.arange(math.prod(shape()), device=device).float().sin().reshape(shape())}
    text = config.get_text_config()
    if name != "input_ids" and not config.is_encoder_decoder:
        return inputs
    # Some heads look for the token that ends a text.
    end = text.eos_token_id if isinstance(text.eos_token_id, int) else 8
    ids = torch.tensor([[*range(1, 8), end]], device=device).remainder(text.vocab_size)
    if name == "input_ids":
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**inputs, "decoder_input_ids": ids} if config.is_encoder_decoder else inputs


def _run(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    output = model(**{key: value for key, value in inputs.items() if key != "labels"})
    return output.get("logits", output)


def _acts(work: Work) -> bool:
    return bool(work.befores or work.replacing or work.afters or work.keys or work.deep or work.around)
