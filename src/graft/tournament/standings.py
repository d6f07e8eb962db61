"""Standings: what came out of all trials, as plain values; `graft report` makes its page from them alone."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from graft import metrics
from graft.checkpoint.record import versions
from graft.files import write_text
from graft.method import Method
from graft.page.standings import ITEMS, SCHEMA
from graft.page.standings import NAME as STANDINGS
from graft.tournament import items, matrices
from graft.tournament.answer import answered
from graft.tournament.contestant import Contestant, spelled
from graft.tournament.design import Design
from graft.tournament.lines import table
from graft.tournament.playing import Board, courses
from graft.tournament.running import headline
from graft.tournament.search import candidates


def write(
    design: Design, boards: Sequence[Board], done: Mapping[str, Any], folder: Path, command: str
) -> dict[str, Any]:
    """Work out the standings and write them, and the items, into the run's folder."""
    found = standings(design, boards, done, folder, command)
    items.write(folder / ITEMS, design, boards, done, folder)
    write_text(folder / STANDINGS, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found


def standings(
    design: Design, boards: Sequence[Board], done: Mapping[str, Any], folder: Path, command: str
) -> dict[str, Any]:
    """The answer, the boards with their lines and pairs, what is read across them, the protocol, and every trial."""
    chosen = metrics.get(headline(design, boards[0].arena))
    tables = [table(design, board, done, folder) for board in boards]
    about = {"name": chosen.name, "title": chosen.title, "unit": chosen.unit,
             "higher_is_better": chosen.higher_is_better}  # fmt: skip
    found = {
        "schema": SCHEMA, "name": folder.name, "command": command, "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "metric": about, "answer": answered(tables, about), "protocol": _protocol(design),
        "contestants": [_contestant(each, design) for each in design.contestants], "boards": tables,
        "ranks": matrices.ranks(tables, chosen.higher_is_better), "sweeps": matrices.sweeps(design, tables),
        "ablations": matrices.ablations(design, boards, done), "transfer": matrices.transfer(design, boards, done),
        "trials": [trial for board in boards for trial in _trials(design, board, done)],
        "environment": _environment(),
    }  # fmt: skip
    # JSON has no NaN and no infinity: they become null.
    return json.loads(json.dumps(found, default=str), parse_constant=lambda _: None)


def _contestant(contestant: Contestant, design: Design) -> dict[str, Any]:
    way, summary = contestant.way, (type(contestant.way).__doc__ or "").partition("\n")[0]
    tried = candidates(contestant, design.trials)
    return {
        "name": contestant.name, "kind": "method" if isinstance(way, Method) else "entrant",
        "family": way.family if isinstance(way, Method) else "no fine-tuning", "summary": summary,
        "settings": spelled(way), "searched": {key: [dict(each)[key] for each in tried] for key, _ in tried[0]},
    }  # fmt: skip


def _protocol(design: Design) -> dict[str, Any]:
    """How it was compared, as values and as sentences."""
    training = asdict(design.training)
    length = f"{training['epochs']:g} epochs, but at least {design.least_steps} steps,"
    if training["steps"] or training["seconds"]:
        length = f"{training['steps']} steps" if training["steps"] else f"{training['seconds']:.0f} seconds"
    text = [
        "All contestants of a board have the same train, validation and test rows, and answer the same test items.",
        f"Each tries at most {design.trials} candidate settings, its learning rate first; they are halved by the "
        "validation score after a share of the full length, and the one left is trained in full with every seed "
        f"({', '.join(map(str, design.seeds))}) and tested once. Who is not fine-tuned is fitted in full for each "
        "candidate, and once where no seed changes anything.",
        f"Full length: {length} in batches of {training['batch']} rows; the tensors of the lowest validation loss.",
        "A seed decides the start of new tensors, the order of the rows and dropout. Train rows of a smaller size are "
        "among those of a larger one.",
        "Intervals are of 95 %, over seeds and items; two contestants are told apart when the interval of their "
        "difference excludes zero and the test, corrected by Holm over all pairs of a board, has p of at most 0.05.",
        "What is measured is the median over seeds. Who trains above frozen layers only computes what those give once "
        "for each row, without their dropout; its time is counted.",
        *design.notes,
    ]
    return {"seeds": list(design.seeds), "trials": design.trials, "sizes": list(design.sizes), "training": training,
            "level": 0.95, "resamples": 2000, "text": text}  # fmt: skip


def _trials(design: Design, board: Board, done: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, way in courses(design, board, done).items():
        for trial in (*way.rungs, *way.final):
            result = done.get(trial.id)
            if result is not None:
                found.append({
                    "id": trial.id, "contestant": name, "board": board.id, "seed": trial.seed,
                    "candidate": dict(trial.candidate), "share": trial.share, "final": trial.final,
                    **{key: result.get(key) for key in ("status", "error", "validation", "score", "seconds")},
                })  # fmt: skip
    return found


def _environment() -> dict[str, Any]:
    return {
        **versions(), "python": platform.python_version(), "platform": platform.platform(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}", "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip
