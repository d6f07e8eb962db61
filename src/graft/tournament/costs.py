"""What a contestant costs: sizes, time, memory, arithmetic, energy, speed of answering, forgetting."""

import importlib.util
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch

from graft.attach import Adapter, merge, unmerge, use
from graft.data.losses import to_device
from graft.data.rows import Row
from graft.data.tasks_of_rows import named
from graft.errors import Refused
from graft.scoring import forgetting, general_text, not_for, score
from graft.tournament.arena import Arena
from graft.tournament.flops import Flops
from graft.training.loop import Fit

TIMES = 5  # measurements of a latency, of which the median counts
TASK = "trial"
ROWS = 32  # answered to measure throughput

Answer = Callable[[Sequence[Row]], Any]


def of_adapter(arena: Arena, adapter: Adapter, fitted: Fit, energy: float | None, size: int) -> dict[str, Any]:
    """The costs of a trained adapter. A number that does not exist here is None."""
    counts, name = adapter.counts, adapter.name
    return {
        "trainable": counts.trainable + counts.head, "changed": counts.changed, "rank": counts.rank,
        "stored_bytes": counts.stored, "training_seconds": round(fitted.seconds, 3),
        "tokens_per_second": round(fitted.tokens / max(fitted.seconds, 1e-9), 1), "peak_bytes": fitted.peak_memory,
        "flops": _flops(arena, adapter, fitted, size), "energy_kwh": energy,
        **_merged(arena, name), "forgetting": _forgetting(arena, name),
    }  # fmt: skip


def latency(answer: Answer, arena: Arena) -> float:
    """Milliseconds until one row is answered: the median over the first rows of the test set."""
    spent = [_seconds(answer, [arena.test[at % len(arena.test)]]) for at in range(TIMES)]
    return round(1000 * statistics.median(spent), 3)


def throughput(answer: Answer, arena: Arena) -> float:
    """Rows answered in a second, the first rows of the test set at once: the same ones for everyone, merged or not."""
    rows = arena.test[:ROWS]
    return round(len(rows) / _seconds(answer, rows), 3)


def _seconds(answer: Answer, rows: Sequence[Row]) -> float:
    began = time.perf_counter()
    answer(rows)
    return time.perf_counter() - began


def _merged(arena: Arena, name: str) -> dict[str, float | None]:
    """The speed with the adapter in the weights; None for what is no change of parameters and is served attached."""

    def answer(rows: Sequence[Row]) -> Any:
        return score(arena.model, arena.tokenizer, arena.task, rows)

    try:
        merge(arena.model, name)
    except Refused:
        return {"latency_merged_ms": None, "rows_per_second_merged": None}
    try:
        return {"latency_merged_ms": latency(answer, arena), "rows_per_second_merged": throughput(answer, arena)}
    finally:  # or the base would stay changed for all trials to come
        unmerge(arena.model, name)


class Energy:
    """Kilowatt-hours used within the `with`, by codecarbon; None where the extra `energy` is not installed."""

    def __init__(self) -> None:
        self.kwh: float | None = None
        self._tracker: Any = None

    def __enter__(self) -> "Energy":
        found = importlib.util.find_spec("codecarbon")
        if found is not None and found.origin is not None:  # a folder that happens to be called so has none
            from codecarbon import OfflineEmissionsTracker

            logging.getLogger("codecarbon").disabled = True
            # The country only turns energy into emissions, which are not reported.
            self._tracker = OfflineEmissionsTracker(
                country_iso_code="USA", save_to_file=False, allow_multiple_runs=True
            )
            self._tracker.start_task(TASK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is not None:
            used = self._tracker.stop_task(TASK)  # None where the machine gives codecarbon nothing to measure
            self.kwh = None if used is None else float(used.energy_consumed)
            self._tracker.stop()


def _flops(arena: Arena, adapter: Adapter, fitted: Fit, size: int) -> int:
    """Floating point operations of the whole training: one batch counted forward and backward, scaled by tokens.

    Of frozen layers whose output was kept and not computed again, too: what the method needs, wherever it runs.
    """
    features = arena.features(size, "train")[: fitted.rows_at_once]
    batch = to_device(arena.task.inputs(arena.task.collate(features, arena.tokenizer)), arena.model)
    arena.model.train()
    try:
        with use(arena.model, adapter.name, named(features)), Flops() as counter:
            arena.model(**batch).loss.backward()
    finally:
        arena.model.eval()
        arena.model.zero_grad(set_to_none=True)
    return round(counter.total * fitted.tokens / max(int(batch["attention_mask"].sum()), 1))


def _forgetting(arena: Arena, name: str) -> dict[str, Any] | None:
    """The change of the loss on general text, for a base that predicts the next token."""
    if not_for(arena.model, arena.tokenizer):
        return None
    with torch.no_grad():
        found = forgetting(arena.model, arena.tokenizer, name, general_text(arena.design.general_text)).headline
    return {"before": found.base.value, "after": found.other.value, "change": found.difference.as_json()}
