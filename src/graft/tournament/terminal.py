"""The standings in a terminal: the answer, a table for each board, and what could not take part."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from graft.page.costs import cost

COLUMNS = {"trainable": "trainable", "stored_bytes": "stored", "training_seconds": "time", "peak_bytes": "memory"}
STYLES = {"worse": "red", "better": "green", "same": "dim"}


def show(console: Console, standings: Mapping[str, Any]) -> None:
    """Print the answer and the tables."""
    for board in standings["boards"]:
        _print(console, _board(board, standings["metric"]))
        for line in board["lines"]:
            if line["error"]:
                console.print(
                    Text(f"{line['contestant']}: {line['status']}: {line['error']}", "yellow"), soft_wrap=True
                )
        console.print()
    answer = standings["answer"]
    console.print(Text(answer["sentence"], "bold"), soft_wrap=True)
    if answer["doubled"]:
        console.print(Text(answer["doubled"], "dim"), soft_wrap=True)


def _print(console: Console, table: Table) -> None:
    """A table at its own width: rich would cut names and numbers to fit, where a long line can be scrolled or wraps."""
    table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, crop=False, soft_wrap=True)


def _board(board: Mapping[str, Any], metric: Mapping[str, Any]) -> Table:
    rows = board["rows"]
    table = Table(
        title=Text(f"{board['id']}: {rows['train']:,} train, {rows['test']:,} test rows", "bold"),
        title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold",
    )  # fmt: skip
    table.add_column("", no_wrap=True)
    for title in (metric["title"], "95 %", *COLUMNS.values()):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("against the best", no_wrap=True)
    sign = -1 if metric["higher_is_better"] else 1
    for line in sorted(board["lines"], key=lambda line: _place(line, sign)):
        score, against = line["score"], line["against_best"]
        if score is None:
            table.add_row(line["contestant"], *[""] * (2 + len(COLUMNS)), Text(line["status"], "yellow"))
            continue
        best = line["contestant"] == board["best"]
        told = Text("the best", "bold") if best else Text(*_told(against))
        costs = [_cell(line["costs"], name) for name in COLUMNS]
        table.add_row(line["contestant"], _number(score["value"]), _interval(score), *costs, told)
    return table


def _told(against: Mapping[str, Any] | None) -> tuple[str, str]:
    if against is None:
        return "", ""
    return against["verdict"].partition(" (")[0], STYLES.get(against["outcome"], "")


def _place(line: Mapping[str, Any], sign: int) -> tuple[bool, float]:
    value = line["score"] and line["score"]["value"]
    return (value is None, sign * value if value is not None else 0.0)


def _cell(costs: Mapping[str, Any], name: str) -> str:
    return "" if costs.get(name) is None else cost(name).shown(costs[name])


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}"


def _interval(score: Mapping[str, Any]) -> str:
    return "" if score["low"] is None else f"{_number(score['low'])} to {_number(score['high'])}"
