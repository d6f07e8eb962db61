"""What stands in the standings beside the boards: the answer, ranks, sweeps, ablations, transfer, trials."""

import hashlib
from typing import Any

import numpy as np


def answer(boards: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "sentence": "bitfit (36,102 trainable) is the cheapest contestant that is not shown to be worse "
        "than the best, full (22,713,216 trainable).",
        "cheapest": {
            "trainable": {
                "contestant": "bitfit",
                "sentence": "bitfit trains 36,102 numbers, 0.16 % of what full trains.",
            },
            "stored_bytes": {"contestant": "bitfit", "sentence": "bitfit is stored in 145 kB."},
            "training_seconds": {
                "contestant": "lora",
                "sentence": "lora trains in 10.8 s, a quarter of the time of full.",
            },
            "latency_ms": {"contestant": "lora", "sentence": "lora answers in 9.8 ms once merged, as the base does."},
        },
        "pareto": {"trainable": ["zero_shot", "tfidf", "bitfit", "lora", "full"]},
        "doubled": "With twice the items, a difference of 3.4 points could be shown instead of 4.8: lora against full "
        "would stay open, bitfit against full would likely be settled.",
    }


def ranks(boards: list[dict[str, Any]]) -> dict[str, Any]:
    names = [line["contestant"] for line in boards[0]["lines"]]
    average = [1.3 + 0.83 * at for at in range(len(names))]
    groups = [names[at : at + 3] for at in range(max(1, len(names) - 2))]
    return {
        "contestants": names,
        "average": average,
        "critical_difference": 1.9,
        "groups": groups,
        "friedman_p": 0.012,
        "boards": len(boards),
    }


def _score(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 2.1, "high": value + 1.9, "error": 1.0, "reason": None}


def sweeps(board: str) -> list[dict[str, Any]]:
    ranks, sites = [1, 2, 4, 8, 64], ["q", "q v", "q k v o"]
    grid = [
        {
            "at": [r, s],
            "score": _score(78 + 2.4 * np.log2(r + 1) - 0.25 * np.log2(r) ** 2 + 1.4 * k),
            "trainable": 12 * 768 * r * (k + 1),
        }
        for r in ranks
        for k, s in enumerate(sites)
    ]
    line = [
        {"at": [n], "score": _score(70 + 4 * np.log2(n + 1)) if n < 100 else None, "trainable": 768 * n}
        for n in (1, 5, 10, 20, 100)
    ]
    return [
        {
            "contestant": "prefix_tuning",
            "board": board,
            "axes": [{"name": "tokens", "values": [1, 5, 10, 20, 100]}],
            "points": line,
        },
        {
            "contestant": "lora",
            "board": board,
            "axes": [{"name": "rank", "values": ranks}, {"name": "sites", "values": sites}],
            "points": grid,
        },
    ]


def ablations(board: str, random: np.random.Generator) -> list[dict[str, Any]]:
    loss = [
        {
            "first": a,
            "last": b,
            "score": 92 - 1.1 * (b - a + 1) ** 1.4 - 0.4 * b,
            "change": -1.1 * (b - a + 1) ** 1.4 - 0.4 * b,
        }
        for a in range(6)
        for b in range(a, 6)
    ]
    return [{"contestant": "lora", "board": board, "layers": list(range(6)), "loss": loss}]


def transfer() -> list[dict[str, Any]]:
    return [{"contestant": "lora", "model": "MiniLM", "size": 1000, "data": ["mr", "data/sst2", "trec"],
             "scores": [[84.1, 86.0, None], [81.9, 88.2, None], [None, None, 96.4]]}]  # fmt: skip


def trials(board: dict[str, Any], random: np.random.Generator) -> list[dict[str, Any]]:
    made = []
    for line in board["lines"]:
        if line["status"] == "refused":
            continue
        failed = line["status"] == "failed"
        for seed in range(2 if failed else len(line["runs"])):
            made.append(
                {
                    "id": identity(board["id"], line["contestant"], seed),
                    "contestant": line["contestant"],
                    "board": board["id"],
                    "seed": seed,
                    "candidate": {"lr": 0.003 if seed else 0.001},
                    "share": 0.5 if failed else 1.0,
                    "status": "failed" if failed else "done",
                    "error": "the loss became NaN at step 12" if failed else None,
                    "validation": None if failed else 88 + float(random.normal()),
                    "score": None if failed else line["runs"][seed]["score"],
                    "seconds": 3.2 + seed,
                }
            )
    return made


def identity(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
