"""Results as a person reads them: one table of metrics, the verdict, and samples side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graft import metrics
from graft.scoring.outcome import Outcome
from graft.statistics import Comparison, Interval

if TYPE_CHECKING:
    from rich.console import Console


def show_outcome(console: "Console", found: Outcome) -> None:
    """Print every metric: base, other, difference with its 95 % interval, p, and the items that flipped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="bold")
    for title in ("", found.base, found.other, "difference", "95 % interval", "p", "flips"):
        table.add_column(title, justify="left" if not title else "right", no_wrap=bool(title))
    for comparison in found.comparisons.values():
        table.add_row(*(Text(cell) for cell in _cells(comparison)))
    console.print(table)
    _show_reasons(console, {name: each.difference for name, each in found.comparisons.items()})
    style = {"better": "green", "worse": "red"}.get(found.headline.outcome, "yellow")
    console.print(Text(found.verdict, style), soft_wrap=True)


def show_scores(console: "Console", scores: Mapping[str, Interval]) -> None:
    """Print the scores of one system with their 95 % intervals."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="bold")
    for title in ("", "score", "95 % interval"):
        table.add_column(title, justify="left" if not title else "right")
    for name, found in scores.items():
        digits = 1 if metrics.get(name).unit == "%" else 3
        table.add_row(*(Text(cell) for cell in (_title(name), _number(found.value, digits), _interval(found, digits))))
    console.print(table)
    _show_reasons(console, scores)


def show_samples(console: "Console", samples: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Print rows: input, reference, and what each system in `names` gave."""
    from rich.table import Table
    from rich.text import Text

    for sample in samples:
        grid = Table.grid(padding=(0, 2))
        told = ("reference",) if sample["reference"] is not None else ()
        for name in ("input", *told, *names):
            grid.add_row(Text(name, "bold"), Text(_short(sample[name])))
        console.print(grid, "", sep="\n")


def _cells(comparison: Comparison) -> list[str]:
    metric = metrics.get(comparison.metric)
    difference, flips = comparison.difference, comparison.flips
    digits = 1 if metric.unit == "%" else 3
    numbers = [_number(each.value, digits) for each in (comparison.base, comparison.other, difference)]
    moved = f"+{len(flips.improved)} −{len(flips.worsened)}" if flips is not None else ""
    p = "" if comparison.p != comparison.p else f"{comparison.p:.4f}"
    return [_title(comparison.metric), *numbers, _interval(difference, digits), p, moved]


def _title(name: str) -> str:
    metric = metrics.get(name)
    return metric.title + ("" if metric.higher_is_better else " ↓")


def _show_reasons(console: "Console", found: Mapping[str, Interval]) -> None:
    """Say below a table why there is no interval: in a cell a sentence would leave the numbers no room."""
    from rich.text import Text

    reasons: dict[str, list[str]] = {}
    for name, interval in found.items():
        if interval.reason is not None:
            reasons.setdefault(interval.reason, []).append(metrics.get(name).title)
    for reason, titles in reasons.items():
        console.print(Text(f" {', '.join(titles)}: {reason}", "dim"), soft_wrap=True)


def _interval(interval: Interval, digits: int) -> str:
    if interval.reason is not None:
        return "–"
    return f"{_number(interval.low, digits)} to {_number(interval.high, digits)}"


def _number(value: float, digits: int) -> str:
    return "–" if value != value else f"{value:,.{digits}f}".replace("-", "−")


def _short(value: Any) -> str:
    text = " ⏎ ".join(str(value).split("\n"))
    return text if len(text) <= 300 else text[:299] + "…"
