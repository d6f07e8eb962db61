"""One trial: attach, train, score."""

import ctypes
import sys
import time
from dataclasses import asdict
from typing import Any

import psutil
import torch

from benchmarks.acceptance.material import Material
from benchmarks.acceptance.trials import Trial
from graft import use
from graft.checkpoint.record import versions
from graft.loading import load_base
from graft.method import Method, describe
from graft.scoring import score
from graft.training import TrainingOptions, fit
from graft.training.tuning import prepared


def quick() -> None:
    """One thread; and glibc keeps freed memory instead of giving it back at every step."""
    torch.set_num_threads(1)
    if sys.platform == "linux":
        heap = ctypes.CDLL(None)
        if hasattr(heap, "mallopt"):  # musl has none
            heap.mallopt(-4, 0)  # M_MMAP_MAX
            heap.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def run(trial: Trial, material: Material, *, method: Method | None = None, lr: float | None = None,
        epochs: float | None = None) -> dict[str, Any]:  # fmt: skip
    """The record of a trial. method, lr, epochs: in place of the trial's own, for the search."""
    task, plan, made = material.task, trial.plan, method or trial.made
    base = load_base(material.source, task, seed=trial.seed)
    base.model.set_attn_implementation("eager")  # faster than SDPA for texts this short
    before = None if base.fresh else _scores(base, material)
    resident = psutil.Process().memory_info().rss
    adapter = prepared(base.model, made, "default", base.tokenizer, trial.seed)
    options = TrainingOptions(
        epochs=epochs or plan.epochs,
        batch=plan.batch,
        lr=lr or trial.rate,
        autocast=True,
        seed=trial.seed,
        accumulate=1,
    )
    clock = time.process_time()
    fitted = fit(base.model, base.tokenizer, task, material.train, [], adapter, options)
    cpu = time.process_time() - clock
    with use(base.model, "default"):
        after = _scores(base, material)
    counts = adapter.counts
    return {
        "data": trial.data, "method": trial.method, "seed": trial.seed, "scores": after, "base": before,
        "settings": describe(made), "lr": options.lr, **asdict(plan), "epochs": options.epochs,
        "steps": fitted.steps, "tokens": fitted.tokens, "train_rows": len(material.train), "dropped": material.dropped,
        "trainable": counts.trainable, "head": counts.head, "stored": counts.stored, "total": counts.total,
        "seconds": round(fitted.seconds, 2), "cpu_seconds": round(cpu, 2), "peak": fitted.peak_memory,
        "resident_before": resident, "last_loss": fitted.history[-1]["loss"],
        "data_hash": material.data_hash, "versions": versions(), "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }  # fmt: skip


def _scores(base: Any, material: Material) -> dict[str, dict[str, float]]:
    """By split: accuracy and number of rows, or the loss per token."""
    found = {}
    for split, rows in material.scored.items():
        records = score(base.model, base.tokenizer, material.task, rows)
        if "output" in records[0]:
            right = sum(record["output"] == record["reference"] for record in records)
            found[split] = {"accuracy": right / len(records), "rows": len(records)}
        else:
            tokens = sum(record["tokens"] for record in records)
            found[split] = {"loss": sum(record["loss"] for record in records) / tokens, "tokens": tokens}
    return found
