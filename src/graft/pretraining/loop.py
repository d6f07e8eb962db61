"""The training loop: seeded by step, so that a resumed run and an uninterrupted one give the same tensors."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from graft.errors import Refused
from graft.pretraining.batches import Batches
from graft.pretraining.optimizers import Name, optimizers
from graft.pretraining.snapshot import Counters, load_snapshot, save_snapshot, snapshots


@dataclass(frozen=True)
class Settings:
    """tokens or minutes: when to stop (whichever comes first). rate: peak learning rate, after `warmup` of the run; it
    falls along a cosine to a tenth. accumulate: forward passes of `Batches.rows` in an optimizer step. decay: of
    weights. clip: norm of gradients. every: minutes between snapshots. A budget in minutes makes the learning rate
    depend on the clock, so that only a budget in tokens alone is exactly repeatable. short: tokens in a row during the
    first `short_share` of the run, in as many more rows (Press et al. 2021: short first, long later).
    """

    tokens: int | None = None
    minutes: float | None = None
    rate: float = 1e-3
    warmup: float = 0.02
    accumulate: int = 1
    decay: float = 0.1
    clip: float = 1.0
    optimizer: Name = "adamw"
    bf16: bool = True
    seed: int = 0
    every: float = 5.0
    short: int | None = None
    short_share: float = 0.75


@dataclass(frozen=True)
class Progress:
    """What a step tells: share of the budget used, nats per predicted token, tokens per second of this sitting."""

    step: int
    tokens: int
    share: float
    loss: float
    rate: float
    norm: float
    speed: float


def train(
    model: PreTrainedModel, batches: Batches, settings: Settings, folder: Path, report: Callable[[Progress], None]
) -> Counters:
    """Train until the budget is used, from the newest snapshot in `folder` where there is one.

    Raises Refused, naming the step, when the loss or the gradient is not finite.
    """
    made = optimizers(model, settings.optimizer, settings.rate, settings.decay)
    facts = {name: value for name, value in asdict(settings).items() if name != "every"}
    facts |= {
        "length": batches.length,
        "rows": batches.rows,
        "objective": batches.objective,
        "text": len(batches.tokens),
    }
    kept = snapshots(folder)
    counters = load_snapshot(kept[-1], model, made, facts) if kept else Counters()
    short = shortened(batches, settings.short) if settings.short else batches
    model.train()
    started = saved = time.monotonic()
    earlier, seen = counters.seconds, counters.tokens
    while (share := used(counters, settings)) < 1:
        rate = settings.rate * factor(share, settings.warmup)
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = rate
        stage = short if share < settings.short_share else batches
        loss, norm = _step(model, stage, settings, counters, made)
        counters.step += 1
        now = time.monotonic()
        counters.seconds = earlier + now - started
        speed = (counters.tokens - seen) / (now - started)
        report(Progress(counters.step, counters.tokens, used(counters, settings), loss, rate, norm, speed))
        if now - saved > settings.every * 60:
            save_snapshot(folder, model, made, counters, facts)
            saved = time.monotonic()
    save_snapshot(folder, model, made, counters, facts)
    return counters


def shortened(batches: Batches, length: int) -> Batches:
    """The same text in shorter rows, with about as many tokens in a batch."""
    return replace(batches, length=length, rows=max(1, batches.rows * batches.length // length))


def used(counters: Counters, settings: Settings) -> float:
    """The share of the budget that is used."""
    by_tokens = counters.tokens / settings.tokens if settings.tokens else 0.0
    by_time = counters.seconds / (60 * settings.minutes) if settings.minutes else 0.0
    return max(by_tokens, by_time)


def factor(share: float, warmup: float, floor: float = 0.1) -> float:
    """The learning rate as a share of its peak: linear warm-up, then a cosine down to `floor`."""
    if share < warmup:
        return max(share / warmup, 0.01)
    done = (share - warmup) / (1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def arithmetic(model: PreTrainedModel, bf16: bool) -> AbstractContextManager:
    """The autocast context of a run on the model's device."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def _step(
    model: PreTrainedModel, batches: Batches, settings: Settings, counters: Counters, made: list[torch.optim.Optimizer]
) -> tuple[float, float]:
    """One optimizer step: (loss, gradient norm). Seeding here is what makes dropout repeat after a resume."""
    torch.manual_seed(settings.seed * 1_000_003 + counters.step)
    total = 0.0
    for part in range(settings.accumulate):
        batch = {
            name: value.to(model.device)
            for name, value in batches.at(counters.step * settings.accumulate + part).items()
        }
        with arithmetic(model, settings.bf16):
            loss = model(**batch, use_cache=False).loss if batches.shape != "encoder" else model(**batch).loss
        (loss / settings.accumulate).backward()
        total += loss.item() / settings.accumulate
        counters.tokens += batch["input_ids"].numel()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip))
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise Refused(
            f"step {counters.step}: loss {total}, gradient norm {norm}. Lower --rate and start again in another output."
        )
    for optimizer in made:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total, norm
