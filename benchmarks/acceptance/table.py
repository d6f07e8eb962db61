"""The results as tables in benchmarks/README.md, between the marks; nothing there that was not measured."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.acceptance.trials import CLASSIFICATION, LANGUAGE, METHODS, TITLES, trials
from graft.files import write_text

README = Path(__file__).parent.parent / "README.md"
ALLOWED = 1.5  # points that LoRA may be below full fine-tuning
Records = Sequence[dict[str, Any]]


def write(records: Records, searched: Records) -> None:
    """Put the tables of these records, and of the search, into the README."""
    parts = [_classification(records, data) for data in CLASSIFICATION]
    text = "\n\n".join([*parts, _gap(records), _language(records), _missing(records)])
    _put("acceptance", text)
    _put("search", _searched(searched))


def _put(name: str, text: str) -> None:
    """Text between the marks of a name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = README.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    write_text(README, f"{before}{begin}\n\n{text}\n\n{end}{after}")


def _of(records: Records, data: str, method: str) -> Records:
    """By seed, each once: two runs at the same time may have done the same trial."""
    found = {r["seed"]: r for r in reversed(records) if (r["data"], r["method"]) == (data, method)}
    return [found[seed] for seed in sorted(found)]


def _searched(searched: Records) -> str:
    lines = [
        "| data | method | sites | epochs | learning rate: accuracy on the validation part, % |",
        "|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for r in searched:
        key = (r["data"], TITLES[r["method"]].partition(",")[0], r["settings"].get("sites", ""), f"{r['epochs']:g}")
        groups.setdefault(key, []).append(f"{r['lr']:g}: {100 * r['scores']['validation']['accuracy']:.1f}")
    lines += [f"| {' | '.join(key)} | {'; '.join(found)} |" for key, found in groups.items()]
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int = 1) -> str:
    around = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{around}"


def _accuracies(records: Records) -> list[float]:
    return [100 * r["scores"]["test"]["accuracy"] for r in records]


def _classification(records: Records, data: str) -> str:
    some = next((r for r in records if r["data"] == data), None)
    if some is None:
        return f"**{data}**: no trial yet."
    dropped = sum(some["dropped"].values())
    rows = some["scores"]["test"]["rows"]
    lines = [
        f"**{data}**: {some['train_rows']:,} train rows ({dropped} that are test rows too were dropped), {rows:,} test "
        f"rows, {some['epochs']:g} epochs in batches of {some['batch']}, {some['steps']:,} steps.",
        "",
        "| method | accuracy, % | seeds | lr | trainable (+ head) | CPU s | ms a step | peak MiB | added MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        if found := _of(records, data, method):
            lines.append("| " + " | ".join(_cells(method, found)) + " |")
    return "\n".join(lines)


def _cells(method: str, found: Records) -> list[str]:
    one = found[0]
    return [
        TITLES[method],
        _spread(_accuracies(found)),
        ", ".join(str(r["seed"]) for r in found),
        f"{one['lr']:g}",
        f"{one['trainable']:,} + {one['head']:,}",
        _spread([r["cpu_seconds"] for r in found], 0),
        _spread([1000 * r["cpu_seconds"] / r["steps"] for r in found], 0),
        f"{mean(r['peak'] for r in found) / 2**20:,.0f}",
        f"{mean(r['peak'] - r['resident_before'] for r in found) / 2**20:,.0f}",
    ]


def _gap(records: Records) -> str:
    """LoRA against full fine-tuning, on the seeds that both have."""
    lines = []
    for data in CLASSIFICATION:
        full = {r["seed"]: r for r in _of(records, data, "full")}
        lora = {r["seed"]: r for r in _of(records, data, "lora")}
        both = sorted(full.keys() & lora.keys())
        if not both:
            continue
        gap = mean(_accuracies([full[s] for s in both])) - mean(_accuracies([lora[s] for s in both]))
        said = "within" if gap <= ALLOWED else "NOT within"
        seeds = "seed" if len(both) == 1 else "seeds"
        numbers = ", ".join(map(str, both))
        lines.append(
            f"- {data}: full fine-tuning less LoRA is {gap:+.1f} points ({seeds} {numbers}): {said} {ALLOWED}."
        )
    return "\n".join(lines)


def _language(records: Records) -> str:
    found = _of(records, LANGUAGE, "lora")
    if not found:
        return f"**{LANGUAGE}**: no trial yet."
    one = found[0]
    lines = [
        f"**{LANGUAGE}**, stories260K, {TITLES['lora']} (lr {one['lr']:g}, {one['trainable']:,} trainable), "
        f"{one['epochs']:g} epochs of {one['batch']} blocks of {one['length']} tokens a step, {one['steps']} steps.",
        "",
        "| | untouched | LoRA | seeds |",
        "|---|---|---|---|",
    ]
    seeds = ", ".join(str(r["seed"]) for r in found)
    for split, shown in one["scores"].items():
        before = mean(r["base"][split]["loss"] for r in found)
        after = _spread([r["scores"][split]["loss"] for r in found], 3)
        lines.append(f"| {split} loss per token ({shown['tokens']:,} tokens) | {before:.3f} | {after} | {seeds} |")
    lines += ["", f"CPU {_spread([r['cpu_seconds'] for r in found], 0)} s; "
              f"peak {mean(r['peak'] for r in found) / 2**20:,.0f} MiB."]  # fmt: skip
    return "\n".join(lines)


def _missing(records: Records) -> str:
    done = {(r["data"], r["method"], r["seed"]) for r in records}
    left = [str(trial) for trial in trials() if (trial.data, trial.method, trial.seed) not in done]
    if not left:
        return f"All {len(done)} trials are done."
    return f"**Not measured yet** ({len(left)} of {len(list(trials()))} trials): {', '.join(left)}."
