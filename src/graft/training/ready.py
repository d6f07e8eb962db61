"""What is checked before a run starts, so that nothing is computed or written for one that cannot be made."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graft.attach import Adapter
from graft.data.task import Features, Task
from graft.errors import BadInput
from graft.method import describe
from graft.training import space
from graft.training.optimization import check_optimizer
from graft.training.options import TrainingOptions
from graft.training.resume import read_facts
from graft.training.tracking import check_trackers


def ready(
    task: Task,
    train: Sequence[Features],
    adapter: Adapter,
    options: TrainingOptions,
    folder: Path | None,
    resume_from: Path | None,
    run: dict[str, Any],
) -> dict[str, Any]:
    """What identifies the run, which its checkpoints keep. `run`: what its caller knows of it, such as the data's hash.

    Raises BadInput without rows, for trackers that are not here, for a folder without the room that the run needs, and
    for a checkpoint of another run.
    """
    if not train:
        raise BadInput("there are no rows to train on.")
    check_trackers(options.report_to)
    check_optimizer(adapter, options)
    if folder is not None:
        space.check_writable(folder)
        space.check_room(folder, adapter)
    facts = {"options": asdict(options), "method": describe(adapter.method), "task": task.as_dict(), "run": run,
             "rows": len(train)}  # fmt: skip
    facts = json.loads(json.dumps(facts, default=list))
    if resume_from is not None:
        _same_run(read_facts(resume_from), facts, resume_from)
    return facts


def _same_run(stored: dict[str, Any], facts: dict[str, Any], checkpoint: Path) -> None:
    differ = []
    for group in facts:
        then, now = stored.get(group), facts[group]
        if isinstance(then, dict) and isinstance(now, dict):
            names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name) and name != "report_to")
            differ += [f"{name} was {then.get(name)!r}, is {now.get(name)!r}" for name in names]
        elif then != now:
            differ.append(f"{group} was {then!r}, is {now!r}")
    if differ:
        raise BadInput(
            f"{checkpoint} belongs to another run: {'; '.join(differ)}. Give the same options, or a new --folder."
        )
