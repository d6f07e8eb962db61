"""A portrait on the terminal."""

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from graft.drawing import terminal
from graft.drawing.block import LAYERS
from graft.portrait.costs import Costs
from graft.portrait.models import LAYERS as SMALL
from graft.portrait.portrait import Portrait
from graft.portrait.structure import SOURCE
from graft.portrait.written import Setting

if TYPE_CHECKING:
    from rich.console import Console

STARTS = {"exact": "as the base", "near": "near the base", "elsewhere": "elsewhere than the base"}


def show(console: "Console", portrait: Portrait, costs: Costs | None, model: str) -> None:
    """Print all of it: formulas, drawing, settings, structure, costs, what it goes with and what it is good for."""
    from rich.text import Text

    console.print(Text(portrait.class_name, "bold").append(f"  {portrait.summary}", "not bold"))
    if portrait.origin:
        console.print(Text(f"from {portrait.origin}", "dim"))
    console.print()
    for line in portrait.description.splitlines():
        console.print(Text(line, "cyan" if line.startswith("    ") else ""), soft_wrap=True)
    console.print()
    console.print(terminal(portrait.marks) if portrait.marks else Text(f"no drawing: {portrait.undrawn}\n", "yellow"))
    if portrait.marks:
        how = f", of {portrait.drawn_as}" if portrait.drawn_as else ""
        console.print(Text(f"  drawn on a decoder of {LAYERS} layers{how}\n", "dim"))
    pairs = [(each.name, f"{_value(each)}  {each.said}") for each in portrait.settings]
    _section(console, "settings", [*pairs, ("learning rate", f"{portrait.learning_rate:g}")])
    _section(console, "facts", _facts(portrait))
    if costs is not None:
        _section(console, f"on {model}", _costs(costs, portrait.merges))
    _section(console, f"structure on a decoder of {SMALL} layers, in the terms of {SOURCE}", portrait.structure.items())
    _section(console, "when it is a good choice", [(each.task, f"{each.said} ({each.source})")
                                                   for each in portrait.advice])  # fmt: skip


def _facts(portrait: Portrait) -> list[tuple[str, str]]:
    trains = f"{portrait.trains}   on a decoder of L layers, width d, feed-forward width f, H heads"
    merges = portrait.merges + (f" (of {portrait.drawn_as})" if portrait.drawn_as else "")
    merges += f": {portrait.unmergeable}" if portrait.merges == "no" else ""
    reasons: dict[str, list[str]] = {}
    for name, why in portrait.refused.items():
        reasons.setdefault(why, []).append(name)
    but = "; ".join(f"not {', '.join(names)}: {why}" for why, names in reasons.items())
    return [
        ("family", portrait.family),
        ("source", portrait.source or "see above"),
        ("acts at", portrait.sites or "what its hyperparameters say"),
        ("starts", STARTS[portrait.start]),
        *([("trains", trains)] if portrait.trains else []),
        *([("merges", merges)] if portrait.merges else []),
        *([("recipe", portrait.recipe)] if portrait.recipe else []),
        *([("in a sum with", f"every other method{', but ' if but else ''}{but}")] if not portrait.undrawn else []),
    ]


def _costs(costs: Costs, merges: str) -> list[tuple[str, str]]:
    if costs.refused:
        return [("not there", costs.refused)]
    found = [("trainable", f"{costs.trainable:,} ({costs.trainable / costs.total:.3%} of {costs.total:,})")]
    if merges != "no":
        where = f", {merges}" if merges.startswith("where") else ""
        found += [
            ("changed", f"{costs.changed:,} entries of the base differ once merged{where}"),
            ("rank", f"{costs.rank:,} at most, of the change of any one matrix"),
        ]
    found += [("stored", f"{costs.stored:,} bytes")]
    found += [("head", f"{costs.head:,} more train in the task's head")] if costs.head else []
    return [*found, ("sites", "; ".join(costs.sites)), *(("note", remark) for remark in costs.remarks)]


def _section(console: "Console", title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Names on the left, what is said about them wrapped on the right."""
    from rich.text import Text

    pairs = list(pairs)
    if not pairs:
        return
    console.print(Text(title, "bold underline"))
    wide = max(len(name) for name, _ in pairs) + 2
    for name, said in pairs:
        first, *rest = textwrap.wrap(said, max(console.width - wide - 2, 30)) or [""]
        console.print(Text(f"  {name:{wide}}", "bold").append(first, "not bold"), soft_wrap=True)
        for line in rest:
            console.print(Text(" " * (wide + 2) + line), soft_wrap=True)
    console.print()


def _value(setting: Setting) -> str:
    """The value, and the default where that is another."""
    value, default = ('""' if each == "" else str(each) for each in (setting.value, setting.default))
    return value if value == default else f"{value} (default {default})"
