"""Writes docs/methods-measured.md from the comparisons of all methods and the times of their steps."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graft.files import write_text

PAGE = Path(__file__).parents[2] / "docs/methods-measured.md"
NOTES = Path(__file__).with_name("notes.json")
HEAD = (Path(__file__).with_name("page.md")).read_text(encoding="utf-8")
TITLES = {
    "encoder": ("trec with MiniLM, an encoder", "accuracy", ("majority", "head")),
    "decoder": ("Descriptions of functions with sprout, a decoder", "loss", ("zero_shot",)),
    "encoder_decoder": ("The same with a small T5, an encoder-decoder", "loss", ("zero_shot",)),
}
COLUMNS = (
    "method",
    "{metric} (95 % interval)",
    "trainable",
    "changed",
    "stored",
    "step over LoRA’s",
    "peak memory",
    "",
)


def write(folder: Path) -> int:
    """Write the page of what is there."""
    steps = folder / "steps.json"
    times = json.loads(steps.read_text()) if steps.is_file() else {}
    notes = json.loads(NOTES.read_text(encoding="utf-8"))
    parts = [HEAD]
    for kind, (title, metric, beside) in TITLES.items():
        lines = [line for name in (kind, f"{kind}-tasks") for line in results(folder / name / "results.csv")]
        if not lines:
            continue
        table = "".join(rows(lines, metric, beside, times, notes.get(kind, {})))
        parts.append(f"## {title}\n\nSeeds: {max(int(line['seeds'] or 0) for line in lines)}.\n\n{table}")
    write_text(PAGE, "\n".join(parts))
    return 0


def results(file: Path) -> list[dict[str, str]]:
    """The lines of a comparison's table; none where there is none yet."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def rows(
    lines: list[dict[str, str]],
    metric: str,
    beside: tuple[str, ...],
    times: Mapping[str, Any],
    notes: Mapping[str, str],
) -> Iterator[str]:
    """The table, best first; then what did not run, and why."""
    done = [line for line in lines if line["status"] == "done"]
    done.sort(key=lambda line: float(line["score"]) * (1 if metric == "loss" else -1))
    yield "| " + " | ".join(COLUMNS).format(metric=metric) + " |\n|---|--:|--:|--:|--:|--:|--:|---|\n"
    for line in done:
        name = line["contestant"]
        score = "{} ({} to {})".format(*(shown(line[key], metric) for key in ("score", "score_low", "score_high")))
        time = f"{times[name]['ratio']:.2f}" if name in times else ""
        cells = [f"*{name}*" if name in beside else name, score, count(line["cost_trainable"]),
                 count(line["cost_changed"]), size(line["cost_stored_bytes"]), time,
                 f"{float(line['cost_peak_bytes']) / 2**20:,.0f} MiB" if line["cost_peak_bytes"] else "",
                 notes.get(name, "")]  # fmt: skip
        yield "| " + " | ".join(cells) + " |\n"
    if others := [line for line in lines if line["status"] != "done"]:
        yield "\nNot here:\n\n"
        yield from (f"- {line['contestant']}: {line['error'].splitlines()[0]}\n" for line in others)


def shown(value: str, metric: str) -> str:
    """A score with the digits that its metric has."""
    return f"{float(value):.3f}" if metric == "loss" else f"{float(value):.1f}"


def count(value: str) -> str:
    """A number of parameters."""
    return f"{int(float(value)):,}" if value else ""


def size(value: str) -> str:
    """Bytes on disk."""
    number = float(value or 0)
    return f"{number / 1e6:,.2f} MB" if number >= 1e5 else f"{number / 1e3:,.1f} kB"
