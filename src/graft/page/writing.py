"""From the folder of a comparison to its page, its report and its tables."""

from dataclasses import dataclass
from pathlib import Path

from graft.errors import BadInput
from graft.files import write_text
from graft.page import html, items, markdown, standings, table

LIMIT = 5_000_000  # bytes of a page, so that a phone opens it and a mail carries it
MARGIN = 100_000


@dataclass(frozen=True)
class Written:
    """What was written where; `rule` says which items the page holds where it does not hold all."""

    answer: str
    page: Path
    report: Path
    results: tuple[Path, Path]
    items: int
    total: int
    rule: str


def write(run: Path) -> Written:
    """Write page.html, report.md, results.csv and results.parquet into the folder of a comparison.

    Raises BadInput when the folder has no standings, when they cannot be read, or when nothing can be written there.
    """
    found = standings.read(run)
    known = {board["id"] for board in found["boards"]}
    rows = items.read(run)
    if strange := sorted({item.board for item in rows} - known):
        raise BadInput(
            f"{run / standings.ITEMS} has items of {', '.join(strange[:3])}, which {standings.NAME} does not know: "
            "the two are not of one comparison. Run `graft compare` again; it repeats no finished trial."
        )
    seed = next(iter(found["protocol"]["seeds"]), 0)
    drawn = items.samples(rows, seed)
    without = len(html.render(found, items.keep([], seed, 0), drawn).encode())
    kept = items.keep(rows, seed, LIMIT - MARGIN - without)
    page, report, results = run / "page.html", run / "report.md", (run / "results.csv", run / "results.parquet")
    write_text(page, html.render(found, kept, drawn))
    write_text(report, markdown.render(found))
    table.write_csv(results[0], found)
    table.write_parquet(results[1], found)
    return Written(found["answer"]["sentence"], page, report, results, len(kept.items), kept.total, kept.rule)
