"""report.md: the answer, the tables and the protocol as GitHub reads them. Text that was given is shown as text."""

import re
from collections.abc import Iterable, Sequence

from graft.page import maps, told, view, words
from graft.page.maps import HeatMap
from graft.page.standings import Plain, titles


def render(standings: Plain) -> str:
    """The report: everything of the page that needs no picture."""
    answer, several = standings["answer"], len(standings["boards"]) > 1
    parts = [f"# {safe(standings['name'])}", safe(answer["sentence"])]
    parts += ["\n".join(f"- **{each['title']}**: {safe(each['sentence'])}" for each in told.cheapest(standings))]
    parts += [f"**What twice the budget would settle.** {safe(answer['doubled'])}"] if answer.get("doubled") else []
    if several:
        parts += ["## Every board", _overview(standings)]
    for board in standings["boards"]:
        parts += [f"## {safe(titles(standings)[board['id']])}", *_board(board, standings)]
    parts += [*_sweeps(standings), *_record(standings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def safe(text: object) -> str:
    """Text that Markdown neither reads as markup nor breaks a table at."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~#]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are aligned left; cells are already safe."""
    lines = [" | ".join(titles), "|".join("---" if at < left else "--:" for at in range(len(titles)))]
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {lines[at]} |" if at != 1 else f"|{lines[at]}|" for at in range(len(lines)))


def _overview(standings: Plain) -> str:
    ranked = bool(standings.get("ranks"))
    columns = ["", *map(safe, titles(standings).values()), *(["average rank"] if ranked else [])]
    rows = []
    for row in view.overview(standings):
        cells = [f"**{cell.text}**" if cell.bold else cell.text for cell in row["cells"]]
        rows.append([safe(row["name"]), *cells, *([row["rank"].text] if ranked else [])])
    return table(columns, rows) + "\n\nBold: not shown to be worse than the best of its board."


def _board(board: Plain, standings: Plain) -> list[str]:
    metric = standings["metric"]
    kinds, spent, missing = view.spent(board, metric)
    rows, out = [], []
    for row in view.scores(board, metric):
        if row["status"] == "done":
            name = f"**{safe(row['name'])}**" if row["equal"] else safe(row["name"])
            rows.append([name, f"{row['score'].text} ({safe(row['score'].more)})", _verdict(row["best"]),
                         _verdict(row["reference"]), row["flips"].text])  # fmt: skip
        else:
            rows.append([safe(row["name"]), row["status"], "", "", ""])
            out.append(f"- {safe(row['name'])} {row['status']}: {safe(row['error'])}")
    reference = f"against {safe(board.get('reference') or 'the reference')}"
    first = table(
        ["", f"{safe(metric['title'])}, {told.level(standings)} interval", "against the best", reference, "flips"], rows
    )
    costs = table(
        ["", *(kind.title for kind in kinds)],
        [[safe(row["name"]), *(cell.text for cell in row["cells"])] for row in spent],
    )
    items = f"{board['rows'].get('test', 0):,} test items. Bold: not shown to be worse than the best."
    return [first, items, "\n".join(out), costs, f"Not measured here: {'; '.join(missing)}." if missing else ""]


def _verdict(cell: view.Cell) -> str:
    return safe(f"{cell.text} {cell.more}".strip())


def _sweeps(standings: Plain) -> list[str]:
    parts = []
    for sweep in maps.sweeps(standings):
        parts.append(f"## {safe(sweep['name'])} by {safe(' and '.join(sweep['axes']))}, {safe(sweep['board'])}")
        rows = [
            [*map(safe, point["at"]), point["score"], point["interval"], point["trainable"]]
            for point in sweep["points"]
        ]
        parts.append(table([*map(safe, sweep["axes"]), "score", "interval", "trainable"], rows, len(sweep["axes"])))
    for heading, found in (
        ("Without some of the layers", maps.ablations(standings)),
        ("Transfer", maps.transfer(standings)),
    ):
        parts += [f"## {heading}"] * bool(found)
        for each in found:
            parts += [f"{safe(each.title)}. {each.note} Rows: {each.down}; columns: {each.across}.", _heat(each)]
    return parts


def _heat(each: HeatMap) -> str:
    rows = [[safe(name), *(cell.text for cell in row)] for name, row in zip(each.rows, each.cells, strict=True)]
    return table(["", *map(safe, each.columns)], rows)


def _record(standings: Plain) -> list[str]:
    text = standings["protocol"].get("text") or []
    failed = [trial for trial in standings["trials"] if trial["status"] != "done"]
    parts = ["## Protocol", "\n".join(f"- {safe(sentence)}" for sentence in text)]
    parts += ["\n".join(f"- {name}: {safe(value)}" for name, value in told.protocol(standings))]
    rows = [
        [safe(each[key]) for key in ("name", "kind", "settings", "searched")] for each in told.contestants(standings)
    ]
    parts += ["## Contestants", table(["", "kind", "settings", "searched"], rows, 4)]
    parts += ["## Trials", told.trial_words(standings, 0), "\n".join(_failed(trial) for trial in failed)]
    parts += [
        "## Environment",
        "\n".join(f"- {safe(name)}: {safe(value)}" for name, value in told.environment(standings)),
    ]
    fence = "`" * (2 + max((len(run) for run in re.findall("`+", standings["command"])), default=1))
    return [*parts, "## Do it again", f"{fence}\n{standings['command']}\n{fence}"]


def _failed(trial: Plain) -> str:
    settings = words.settings(trial.get("candidate"))
    why = trial.get("error") or trial["status"]
    return f"- {safe(trial['contestant'])} on {safe(trial['board'])}, {safe(settings) or 'no settings'}: {safe(why)}"
