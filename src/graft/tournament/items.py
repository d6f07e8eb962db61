"""items.parquet of a comparison: a row for each item of each board, every contestant's answer and score beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graft import metrics
from graft.files import writing
from graft.tournament import results
from graft.tournament.design import Design
from graft.tournament.playing import Board, courses
from graft.tournament.running import headline


def write(target: Path, design: Design, boards: Sequence[Board], done: Mapping[str, Any], folder: Path) -> None:
    """Write the rows: board, item, where, input, reference, and NAME.output (of the first seed) and NAME.score (the
    mean over seeds; null where the metric has no score of a single item) for every contestant."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for board in boards for row in _rows(design, board, done, folder)]
    columns = dict.fromkeys(["board", "item", "where", "input", "reference"])
    for contestant in design.contestants:
        columns |= {f"{contestant.name}.output": None, f"{contestant.name}.score": None}
    with writing(target) as temporary:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), temporary)


def _rows(design: Design, board: Board, done: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    task, metric = board.arena.task, metrics.get(headline(design, board.arena))
    rows: list[dict[str, Any]] = [
        {"board": board.id, "item": at, "where": row.where, "input": task.input(row),
         "reference": _text(task.reference(row))}
        for at, row in enumerate(board.arena.test)
    ]  # fmt: skip
    for name, way in courses(design, board, done).items():
        finals = [trial.id for trial in way.final if done.get(trial.id, {}).get("status") == "done"]
        runs = [results.records(folder, identity) for identity in finals]
        if not runs:
            continue
        scores = [each for run in runs if (each := metric.score(run).items) is not None]
        for at, record in enumerate(runs[0]):
            rows[at][f"{name}.output"] = _text(record["output"]) if "output" in record else None
        for at, value in enumerate(np.mean(scores, axis=0) if scores else ()):
            rows[at][f"{name}.score"] = None if np.isnan(value) else float(value)
    return rows


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
