"""`graft methods`: the catalogue, and one method in full."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from graft.method import Method
    from graft.portrait import Costs, Portrait

FAMILIES = {
    "parameter": "Change the parameters", "function": "Change what passes", "selective": "Train some of the base's own",
    "input": "Add to the input", "side": "A network beside the base", "hybrid": "Several in one",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Show every method by family, or one in full: what it computes, where it acts, what it costs, what it goes with.

    `graft methods lora --rank 16` shows one with other settings, `graft methods ./mine.py` one of your own. With
    --model, counts are those on that model, from its configuration alone; exits with 2 when one method cannot be on it.
    """

    method: Annotated["str | Method", "one method, a sum of them, or a file with one of your own; by default all"] = ""
    model: Annotated[str, "count on this model: a folder, a config.json, a hub id, or a bundled base"] = ""


@dataclass(frozen=True)
class Line:
    """One method in the table. `trains`: what it trains on a decoder, as a formula, or ""."""

    name: str
    class_name: str
    family: str
    summary: str
    origin: str
    trains: str
    merges: str
    costs: "Costs | None"


@dataclass(frozen=True)
class Result:
    """The catalogue, or one method in full."""

    model: str
    lines: list[Line]
    portrait: "Portrait | None" = None
    costs: "Costs | None" = None

    @property
    def exit_code(self) -> int:
        """2 when one method was asked for and cannot be on the model."""
        return 2 if self.costs is not None and self.costs.refused else 0

    def as_json(self) -> dict[str, Any]:
        """What is shown, as plain values."""
        if self.portrait is None:
            return {"model": self.model, "methods": [asdict(line) for line in self.lines]}
        return {"model": self.model, **asdict(self.portrait), "costs": self.costs and asdict(self.costs)}

    def show(self, console: "Console") -> None:
        """Print a table for each family, or one method in full."""
        from rich.table import Table
        from rich.text import Text

        from graft.portrait import show

        if self.portrait is not None:
            return show(console, self.portrait, self.costs, self.model)
        for family in sorted({line.family for line in self.lines}, key=place):
            table = Table("method", "what it is", "trains", "merges", box=None, pad_edge=False, header_style="dim")
            for line in self.lines:
                if line.family == family:
                    summary = Text(line.summary).append(f" (from {line.origin})" if line.origin else "", "dim")
                    table.add_row(Text(line.name, "bold"), summary, _trains(line), line.merges)
            console.print(Text(FAMILIES.get(family, family), "bold underline"), table, "", sep="\n")
        if self.model:
            console.print(Text(f"Parameters that train on {self.model}, and their share of it.", "dim"))
        else:
            console.print(
                Text("L layers of width d and feed-forward width f with H heads; sizes by their names.", "dim")
            )


def place(family: str) -> tuple[int, str]:
    """Where a family stands among the others: one that graft does not know comes last."""
    return ([*FAMILIES, family].index(family), family)


def _trains(line: Line) -> str:
    if line.costs is None:
        return line.trains or "–"
    return "not there" if line.costs.refused else f"{line.costs.trainable:,} ({_share(line.costs):.2%})"


def _share(costs: "Costs") -> float:
    return costs.trainable / costs.total


def run(options: Options) -> Result:
    """Look at every method, or at one. Raises BadInput for a model without a usable configuration."""
    from graft import bases
    from graft.anatomy import skeleton
    from graft.method import Method
    from graft.portrait import costs, portrait

    model = skeleton(bases.place(options.model)) if options.model else None
    if isinstance(options.method, Method):
        found = costs(options.method, model) if model is not None else None
        return Result(options.model, [], portrait(options.method), found)
    return Result(options.model, _lines(model))


def _lines(model: "nn.Module | None") -> list[Line]:
    from graft import catalogue
    from graft.errors import GraftError
    from graft.method import find
    from graft.portrait import costs, formula, merges

    found = []
    for entry in catalogue.methods().values():
        kind = find(entry.name)
        method = kind()
        try:
            can, _ = merges(method)
        except GraftError:
            can = "–"  # it cannot be on the models where that is tried
        spent = costs(method, model) if model is not None else None
        summary = (kind.__doc__ or "").partition("\n")[0]
        trains = "" if model is not None else formula(method)
        found.append(Line(entry.name, kind.__name__, method.family, summary, entry.origin, trains, can, spent))
    return found
