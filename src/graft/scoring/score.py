"""`score`: what a model makes of rows, one record per row."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from graft.attach import of_tasks
from graft.data.losses import to_device
from graft.data.task import Features, Record, Task
from graft.data.tasks_of_rows import grouped
from graft.errors import BadInput
from graft.memory import Portions
from graft.progress import Bar


def score(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch: int = 32,
    title: str = "scoring",
    show: bool = False,
) -> list[Record]:
    """Run `model` on `rows`, and give a record for each, in their order, as `graft.metrics` takes it.

    A record holds `item` (the row's number), `input`, `reference`, what `task.predict` gives (`output` and, as the task
    has it, `probabilities`, summed `loss`, `tokens`, `bytes`). batch: rows at once, halved whenever memory runs out.
    show: a progress bar on the error stream. Raises BadInput when there are no rows.
    """
    if not rows:
        raise BadInput(f"{task.kind}: there are no rows to score.")
    features = sorted(task.features(rows, tokenizer), key=length, reverse=True)
    found: list[Record] = []
    with Bar(title, show) as bar:
        portions = Portions(batch)

        def predict(part: Sequence[Features]) -> list[Record]:
            return task.predict(model, task.collate(part, tokenizer), tokenizer)

        for name, group in grouped(features).items():
            with of_tasks(model, name):
                for records in portions.each(group, predict):
                    found += records
                    bar.update(len(found) / len(features), f"{len(found):,} of {len(features):,}")
    return [
        {**record, "input": task.input(rows[record["item"]]), "reference": task.reference(rows[record["item"]])}
        for record in task.gather(found)
    ]


def example(model: nn.Module, tokenizer: Any, task: Task, row: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the model takes for one row, to ask with `graft.attach.probe` whether an adapter does anything."""
    inputs = to_device(task.inputs(task.collate(task.features([row], tokenizer)[:1], tokenizer)), model)
    if model.config.is_encoder_decoder and "labels" in inputs:  # type: ignore[union-attr]
        # Such a model makes its decoder's input from the labels, which `probe` leaves out.
        inputs["decoder_input_ids"] = inputs["labels"].clamp(min=0)
    return inputs


def length(feature: Mapping[str, Any]) -> int:
    """Tokens of a feature, the answer of an encoder-decoder model included; of several choices together."""
    return sum(_size(feature[name]) for name in ("input_ids", "labels") if isinstance(feature.get(name), list))


def _size(value: Any) -> int:
    return sum(_size(part) for part in value) if isinstance(value, list) else 1
