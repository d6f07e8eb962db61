"""A board of a tournament that never took place: lines, pairs and items, drawn from skills and difficulties."""

from typing import Any

import numpy as np

from graft import metrics, statistics
from page import across

# name, kind, family, what it is, skill, trainable
CONTESTANTS: tuple[tuple[str, str, str, str, float, int], ...] = (
    ("full", "method", "selective", "Train every parameter of the base.", 2.6, 22_713_216),
    ("lora", "method", "parameter", "A low-rank update of each weight.", 2.5, 147_456),
    ("bitfit", "method", "selective", "Train the biases alone.", 1.9, 36_102),
    ("prefix_tuning", "method", "input", "Keys and values in front of every layer.", 1.6, 184_320),
    ("tfidf", "entrant", "", "Words weighted by rarity, and logistic regression.", 1.0, 8_214),
    ("zero_shot", "entrant", "", "The base, asked in words.", -0.4, 0),
    ("houlsby", "method", "function", "Two small networks in each layer.", 2.45, 300_672),
    ("pfeiffer", "method", "function", "One small network in each layer.", 2.4, 151_000),
    ("dora", "method", "parameter", "Direction and size of each weight apart.", 2.52, 156_672),
    ("ia3", "method", "function", "Keys, values and hidden units rescaled.", 1.8, 10_752),
    ("majority", "entrant", "", "Always the commonest label.", -1.4, 0),
    ("head", "method", "selective", "The classification head alone.", 1.1, 2_310),
    ("lstm", "entrant", "", "A recurrent network from nothing.", 0.6, 420_000),
)
LABELS = ("HUM", "LOC", "NUM", "DESC", "ENTY", "ABBR")
HOSTILE = (
    '</script><script>window.broken = 1</script><img src="http://example.invalid/x" onerror="window.broken=2"> & | `x`'
)
ASKED = (
    "Who wrote",
    "Where is",
    "How many people live in",
    "What is the meaning of",
    "Which animal comes from",
    "What stands for",
)
THINGS = (
    "the Iliad",
    "Timbuktu",
    "Greenland",
    "osmosis",
    "Madagascar",
    "NASA",
    "Galileo",
    "the Amazon",
    "Denver",
    "jazz",
)


def board(
    at: int, chosen: Any, items: int, seeds: int, random: np.random.Generator, long: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    data, size = (
        (("trec", 1000), ("trec", 100), ("sst2", 100), ("sst2", 1000))[at]
        if at < 4
        else (f"set{at // 3}", (100, 1000, 5000)[at % 3])
    )
    name = f"minilm-{data}-{size}"
    hard = random.normal(size=items)
    truth = [LABELS[int(k)] for k in random.integers(len(LABELS), size=items)]
    runs: dict[str, list[list[dict[str, Any]]]] = {}
    for contestant, _, _, _, skill, trainable in chosen:
        strength = skill + (0.3 if size > 500 else -0.6 if trainable > 1e7 else 0)
        odds = strength - 2.0 * hard + random.normal(size=(seeds, items)) * 0.3
        right = random.random((seeds, items)) < 1 / (1 + np.exp(-1.2 * odds))
        wrong = [
            LABELS[(LABELS.index(t) + 1 + int(k)) % 6]
            for t, k in zip(truth, random.integers(5, size=items), strict=True)
        ]
        runs[contestant] = [
            [{"item": i, "reference": truth[i], "output": truth[i] if right[s, i] else wrong[i]} for i in range(items)]
            for s in range(seeds)
        ]
    lines = [_line(at, entry, runs, name, random) for entry in chosen]
    _compared(lines, runs)
    board = {
        "id": name,
        "model": "models/MiniLM",
        "data": f"data/{data}",
        "size": size,
        "task": "classification",
        "rows": {"train": size, "validation": 500, "test": items},
        "reference": "zero_shot" if "zero_shot" in runs else chosen[-1][0],
        "card": {
            "source": f"data/{data}",
            "sha256": "9f2c" * 16,
            "notes": ["2 duplicate rows were left out of train."],
            "labels": {label: truth.count(label) for label in LABELS},
        },
        "lines": lines,
        "pairs": _pairs(lines, runs),
    }
    shown = [line["contestant"] for line in lines if line["status"] == "done"]
    rows = []
    for i in range(items):
        text = f"{ASKED[LABELS.index(truth[i]) % 6]} {THINGS[i % 10]} ? ({i})"
        text = f"{HOSTILE} {text}" if i == 3 else text + " lorem ipsum" * (long // 12)
        row = {"board": name, "item": i, "where": f"{data}/test.jsonl:{i + 1}", "input": text, "reference": truth[i]}
        for each in shown:
            row[f"{each}.output"] = runs[each][0][i]["output"] if i != 4 else HOSTILE
            row[f"{each}.score"] = float(np.mean([100.0 * (run[i]["output"] == truth[i]) for run in runs[each]]))
        rows.append(row)
    return board, rows


def _line(at: int, entry: Any, runs: Any, board: str, random: np.random.Generator) -> dict[str, Any]:
    name, kind, _, _, skill, trainable = entry
    empty = {
        "contestant": name,
        "score": None,
        "metrics": {},
        "against_best": None,
        "against_reference": None,
        "equal_to_best": False,
        "chosen": {},
        "costs": {},
        "spread": {},
        "runs": [],
        "curve": [],
    }
    if name == "prefix_tuning" and at == 0:
        return {
            **empty,
            "status": "failed",
            "error": "the loss became NaN at step 12 with lr 0.003; both candidates failed.",
        }
    if name == "zero_shot" and at == 1:
        return {
            **empty,
            "status": "refused",
            "error": "zero_shot asks in words, and MiniLM has no language head <b>here</b>.",
        }
    scores = [100 * float(np.mean([r["output"] == r["reference"] for r in run])) for run in runs[name]]
    pooled = [record for run in runs[name] for record in run]
    found = statistics.interval(
        metrics.get("accuracy"), metrics.get("accuracy").statistics(runs[name][0]), resamples=200
    )
    value, half = float(np.mean(scores)), max(found.high - found.value, 0.4)
    score = {
        "value": value,
        "low": max(0.0, value - half),
        "high": min(100.0, value + half),
        "error": half / 2,
        "reason": None,
    }
    f1 = statistics.interval(metrics.get("f1"), metrics.get("f1").statistics(pooled), resamples=100).as_json()
    seconds = 2 + 40 * (trainable / 2.3e7) ** 0.3 + 3 * at
    seconds = seconds if kind == "method" else (0.0 if not trainable else 0.4)
    curve = [
        {
            "seed": s,
            "step": 10 * k,
            "seconds": seconds * k / 20,
            "loss": 1.8 * np.exp(-k * (0.1 + skill / 20)) + 0.2 + 0.05 * random.normal(),
            "validation_loss": 1.6 * np.exp(-k * (0.09 + skill / 22)) + 0.35 + 0.01 * k * (trainable > 1e6)
            if k % 5 == 0
            else None,
        }
        for s in range(len(scores))
        for k in range(1, 21)
    ]
    lost = 0.01 * trainable / 1e6
    costs = {
        "trainable": trainable,
        "changed": trainable,
        "rank": 8 if name in ("lora", "dora") else None,
        "stored_bytes": 4 * trainable + 900,
        "training_seconds": seconds,
        "tokens_per_second": 41_000 / (1 + trainable / 3e7) if kind == "method" else None,
        "peak_bytes": int(3e8 + 12 * trainable),
        "flops": 1.1e13 * seconds if kind == "method" else None,
        "energy_kwh": None,
        "latency_ms": 11.2 if kind == "method" else 1.4,
        "latency_merged_ms": 9.8 if name in ("lora", "dora", "bitfit") else None,
        "rows_per_second": 640.0,
        "rows_per_second_merged": None,
        "forgetting": {
            "before": 3.1,
            "after": 3.1 + lost,
            "change": {"value": lost, "low": lost - 0.01, "high": lost + 0.01},
        }
        if kind == "method"
        else None,
    }
    return {
        **empty,
        "status": "done",
        "error": None,
        "score": score,
        "metrics": {"accuracy": score, "f1": f1},
        "chosen": {"lr": 0.003} if kind == "method" else {},
        "costs": costs,
        "spread": {"training_seconds": [seconds * 0.95, seconds * 1.1]} if seconds else {},
        "runs": [
            {"seed": s, "trial": across.identity(board, name, s), "score": score} for s, score in enumerate(scores)
        ],
        "curve": curve if kind == "method" else [],
    }


def _compared(lines: list[dict[str, Any]], runs: Any) -> None:
    done = [line for line in lines if line["status"] == "done"]
    best = max(done, key=lambda line: line["score"]["value"])
    for line in done:
        if line is not best:
            line["against_best"] = _comparison(runs, best["contestant"], line["contestant"])
        if line["contestant"] != "zero_shot" and "zero_shot" in runs:
            line["against_reference"] = _comparison(runs, "zero_shot", line["contestant"])
        line["equal_to_best"] = line is best or line["against_best"]["outcome"] in ("no difference shown", "same")


def _comparison(runs: Any, base: str, other: str) -> dict[str, Any]:
    return statistics.compare(metrics.get("accuracy"), runs[base][0], runs[other][0], resamples=200).as_json()


def _pairs(lines: list[dict[str, Any]], runs: Any) -> list[dict[str, Any]]:
    done = [line["contestant"] for line in lines if line["status"] == "done"][:6]
    pairs = [(a, b) for at, a in enumerate(done) for b in done[at + 1 :]]
    made = [{"a": a, "b": b, "comparison": _comparison(runs, a, b)} for a, b in pairs]
    return [{**pair, "p_corrected": min(1.0, pair["comparison"]["p"] * 3)} for pair in made]
