"""What a contestant costs: sizes, time, memory, arithmetic, energy, speed of answering, forgetting."""

import importlib.util
import logging
import statistics
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from graft.attach import Adapter, merge, unmerge, use
from graft.data.losses import to_device
from graft.errors import Refused
from graft.scoring import forgetting, general_text, not_for, score
from graft.tournament.arena import Arena
from graft.training.loop import Fit

TIMES = 5  # measurements of a latency, of which the median counts
TASK = "trial"
ROWS = 32  # answered to measure throughput when merged


def of_adapter(arena: Arena, adapter: Adapter, fitted: Fit, energy: float | None, size: int) -> dict[str, Any]:
    """The costs of a trained adapter, which is in use. A number that does not exist here is None."""
    counts, model, name = adapter.counts, arena.model, adapter.name

    def answer(rows: Any) -> Any:
        return score(model, arena.tokenizer, arena.task, rows)

    found = {
        "trainable": counts.trainable + counts.head, "changed": counts.changed, "rank": counts.rank,
        "stored_bytes": counts.stored, "training_seconds": round(fitted.seconds, 3),
        "tokens_per_second": round(fitted.tokens / max(fitted.seconds, 1e-9), 1), "peak_bytes": fitted.peak_memory,
        "flops": _flops(arena, adapter, fitted, size), "energy_kwh": energy,
    }  # fmt: skip
    try:
        merge(model, name)
    except Refused:  # it says so by None: what is no change of parameters is served attached
        found |= {"latency_merged_ms": None, "rows_per_second_merged": None}
    else:
        rows = arena.test[:ROWS]
        began = time.perf_counter()
        answer(rows)
        found["rows_per_second_merged"] = round(len(rows) / (time.perf_counter() - began), 3)
        found["latency_merged_ms"] = latency(answer, arena)
        unmerge(model, name)
    return found | {"forgetting": _forgetting(arena, name)}


def latency(answer: Callable[[Any], Any], arena: Arena) -> float:
    """Milliseconds until one row is answered: the median over the first rows of the test set."""
    spent = []
    for at in range(TIMES):
        began = time.perf_counter()
        answer([arena.test[at % len(arena.test)]])
        spent.append(time.perf_counter() - began)
    return round(1000 * statistics.median(spent), 3)


class Energy:
    """Kilowatt-hours used within the `with`, by codecarbon; None where the extra `energy` is not installed."""

    def __init__(self) -> None:
        self.kwh: float | None = None
        self._tracker: Any = None

    def __enter__(self) -> "Energy":
        if importlib.util.find_spec("codecarbon"):
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
    """Floating point operations of the whole training: one batch counted forward and backward, scaled by tokens."""
    features = arena.features(size, "train")[: fitted.rows_at_once]
    batch = to_device(arena.task.inputs(arena.task.collate(features, arena.tokenizer)), arena.model)
    arena.model.train()
    try:
        with use(arena.model, adapter.name), FlopCounterMode(display=False) as counter:
            arena.model(**batch).loss.backward()
    finally:
        arena.model.eval()
        arena.model.zero_grad(set_to_none=True)
    return round(counter.get_total_flops() * fitted.tokens / max(int(batch["attention_mask"].sum()), 1))


def _forgetting(arena: Arena, name: str) -> dict[str, Any] | None:
    """The change of the loss on general text, for a base that predicts the next token."""
    if not_for(arena.model, arena.tokenizer):
        return None
    with torch.no_grad():
        found = forgetting(arena.model, arena.tokenizer, name, general_text(arena.design.general_text)).headline
    return {"before": found.base.value, "after": found.other.value, "change": found.difference.as_json()}
