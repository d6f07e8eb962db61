"""The page: standings and items laid out as one HTML file that needs nothing else, and asks nobody for anything."""

import base64
import hashlib
import json
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from graft.page import costs, data, items, maps, told, view, words
from graft.page.items import Item, Kept
from graft.page.marks import SHAPES, mark
from graft.page.standings import Plain, done, parts, titles

TEMPLATE = Path(__file__).parent / "template"
SCRIPTS = ("elements", "tables", "axes", "scatter", "lines", "ranks", "explorer", "main")
TRIALS = 2000  # rows of the table of trials at most


def render(standings: Plain, kept: Kept, drawn: dict[str, list[Item]]) -> str:
    """The whole page. `drawn`: the samples of each board. Whatever was given as text is shown as text."""
    script = _script()
    return _template().render(
        **_values(standings, kept, drawn),
        style=(TEMPLATE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_embedded(_data(standings, kept)),
    )


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _values(standings: Plain, kept: Kept, drawn: dict[str, list[Item]]) -> Plain:
    """What the template is filled with, beside style, script and data."""
    metric = standings["metric"]
    lines = [line for board in standings["boards"] for line in board["lines"]]
    trials, left = view.trials(standings, TRIALS)
    ranks = standings.get("ranks")
    values: Plain = {
        "standings": standings,
        "created": _day(standings.get("created")),
        "shapes": SHAPES,
        "facts": _facts(standings),
        "marks": {each["name"]: mark(at, each["kind"]) for at, each in enumerate(standings["contestants"])},
        "metric_title": metric["title"],
        "metric_words": told.metric_words(metric),
        "kept": kept,
        "level": told.level(standings),
        "score_first": "descending" if metric["higher_is_better"] else "ascending",
        "environment": told.environment(standings),
        "sizes": any(_sizes(board, standings) > 1 for board in standings["boards"]),
        "cheapest": told.cheapest(standings),
        "overview": view.overview(standings),
        "kinds": costs.measured(lines),
        "any_curves": any(line.get("curve") for line in lines),
        "sweeps": maps.sweeps(standings),
        "ablations": maps.ablations(standings),
        "transfer": maps.transfer(standings),
        "samples": any(drawn.values()),
        "any_reference": any(board.get("reference") for board in standings["boards"]),
        "boards": [_board(board, standings, drawn.get(board["id"], [])) for board in standings["boards"]],
        "ranked": ranks
        and {
            **ranks,
            "pairs": sorted(zip(ranks["contestants"], ranks["average"], strict=True), key=lambda pair: pair[1]),
        },
        "protocol": told.protocol(standings),
        "contestants": told.contestants(standings),
        "trials": trials,
        "judged": told.judged(standings["metric"], kept),
        "trial_words": told.trial_words(standings, left),
    }
    return values | {"sections": _sections(values)}


def _board(board: Plain, standings: Plain, drawn: list[Item]) -> Plain:
    metric = standings["metric"]
    kinds, rows, missing = view.spent(board, metric)
    card, rows_of = board.get("card") or {}, board["rows"]
    labels = card.get("labels") or {}
    most = max(labels.values(), default=0) or 1
    return {
        "title": titles(standings)[board["id"]],
        "parts": [part for at, part in enumerate(parts(board)) if at == 0 or _differ(standings, at)],
        "reference": board.get("reference"),
        "test": f"{rows_of.get('test', 0):,}",
        "scores": view.scores(board, metric),
        "kinds": kinds,
        "costs": rows,
        "missing": missing,
        "details": view.details(board, metric),
        "pairs": view.pairs(board),
        "samples": _samples(board, standings, drawn),
        "card": [
            (name, text)
            for name, text in (
                ("task", board.get("task", words.NOTHING)),
                *((f"{split} rows", f"{count:,}") for split, count in rows_of.items()),
                ("source", card.get("source") or words.NOTHING),
                ("SHA-256", card.get("sha256") or words.NOTHING),
            )
        ],
        "labels": [(name, f"{count:,}", round(100 * count / most, 1)) for name, count in labels.items()],
        "notes": card.get("notes") or [],
    }


def _differ(standings: Plain, at: int) -> bool:
    return len({parts(board)[at] for board in standings["boards"]}) > 1


def _sizes(board: Plain, standings: Plain) -> int:
    """How many boards differ from this one by nothing but their rows, itself among them."""
    same = (each for each in standings["boards"] if (each["model"], each["data"]) == (board["model"], board["data"]))
    return len({each["rows"].get("train") for each in same})


def _samples(board: Plain, standings: Plain, drawn: list[Item]) -> list[Plain]:
    """Each item with the outputs of the contestant that all are compared with, the best and the cheapest one."""
    ranked = [line["contestant"] for line in done(board, standings["metric"]["higher_is_better"])]
    roles: dict[str, str] = {}
    if board.get("reference") in ranked:
        roles[board["reference"]] = "compared with"
    for each in (*(line["contestant"] for line in told.cheapest(standings)), *ranked[:1]):
        roles.setdefault(each, "best score" if ranked and each == ranked[0] else "cheapest by a cost")
    return [
        {"item": item.item, "where": item.where, "input": item.input, "reference": item.reference,
         "outputs": [(name, role, item.outputs[name]) for name, role in roles.items() if name in item.outputs]}
        for item in drawn
    ]  # fmt: skip


def _data(standings: Plain, kept: Kept) -> Plain:
    boards = [board["id"] for board in standings["boards"]]
    names = [each["name"] for each in standings["contestants"]]
    return data.drawn(standings) | {"items": items.packed(kept, boards, names), "shapes": SHAPES}


def _embedded(values: Plain) -> str:
    """JSON that cannot end the element it stands in, and means the same to every reader."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _script() -> str:
    body = "\n".join((TEMPLATE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}}})();'


def _facts(standings: Plain) -> list[str]:
    counts = (
        ("contestant", len(standings["contestants"])),
        ("board", len(standings["boards"])),
        ("seed", len(standings["protocol"]["seeds"])),
    )
    return [*(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts), standings["metric"]["title"]]


def _day(created: Any) -> str:
    try:
        moment = datetime.fromisoformat(str(created))
    except ValueError:
        return ""
    return f"{moment.day} {moment:%B %Y}"


def _sections(values: Plain) -> list[tuple[str, str]]:
    shown = (
        ("scores", "Scores", True),
        ("quality", "Cost", True),
        ("sizes", "Rows", values["sizes"]),
        ("curves", "Curves", values["any_curves"]),
        ("ranks", "Ranks", values["ranked"]),
        ("sweeps", "Sweeps", values["sweeps"] or values["ablations"] or values["transfer"]),
        ("items", "Items", values["kept"].items),
        ("samples", "Samples", values["samples"]),
        ("data-card", "Data", True),
        ("protocol", "Protocol", True),
        ("trials", "Trials", True),
    )
    return [(name, words_) for name, words_, there in shown if there]
