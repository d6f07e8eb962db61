"""Tournaments that never took place: standings and items as `graft compare` leaves them, of any size, from one seed.

Whether a contestant is right on an item is drawn from its skill and the item's difficulty; intervals, differences and
verdicts are then computed by `graft.statistics` from these draws, so that the words on the page are real ones.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from page import across
from page import boards as boards_of
from page.boards import CONTESTANTS
from page.boards import HOSTILE as HOSTILE

METRIC = {"name": "accuracy", "title": "accuracy", "unit": "%", "higher_is_better": True}


def tournament(
    folder: Path, boards: int = 2, contestants: int = 6, items: int = 40, seeds: int = 3, long: int = 0
) -> dict[str, Any]:
    """Write standings.json and items.parquet into `folder`, and give the standings.

    `long`: characters that every input has at least.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(7)
    chosen = CONTESTANTS[:contestants]
    made = [boards_of.board(at, chosen, items, seeds, random, long) for at in range(boards)]
    standings = {
        "schema": 1,
        "name": "trec-sst2",
        "command": "graft compare recipes/compare-classification.yaml --folder runs/trec-sst2",
        "created": "2026-11-20T12:00:00",
        "metric": dict(METRIC),
        "answer": across.answer([board for board, _ in made]),
        "protocol": {
            "seeds": list(range(seeds)),
            "trials": 2,
            "sizes": [100, 1000],
            "level": 0.95,
            "resamples": 2000,
            "training": {"epochs": 3, "batch": 32, "length": 64},
            "text": [
                "Every contestant had 2 trials over its own search space, chosen on validation rows.",
                "The test rows were used once, by the candidate chosen.",
                "Differences are tested in pairs on the same items and corrected by Holm's method.",
            ],
        },
        "contestants": [
            {
                "name": name,
                "kind": kind,
                "family": family,
                "summary": summary,
                "settings": {"rank": 8, "sites": "q v"} if name == "lora" else {},
                "searched": {"lr": [0.001, 0.003]} if kind == "method" else {},
            }
            for name, kind, family, summary, _, _ in chosen
        ],
        "boards": [board for board, _ in made],
        "ranks": across.ranks([board for board, _ in made]),
        "sweeps": across.sweeps(made[0][0]["id"]),
        "ablations": across.ablations(made[0][0]["id"], random),
        "transfer": across.transfer(),
        "trials": [trial for board, _ in made for trial in across.trials(board, random)],
        "environment": {
            "graft": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "machine": "2 cores, x86-64, 8 GiB",
            "threads": 2,
        },
    }
    rows = [row for _, rows in made for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), folder / "items.parquet")
    (folder / "standings.json").write_text(json.dumps(standings), encoding="utf-8")
    return standings
