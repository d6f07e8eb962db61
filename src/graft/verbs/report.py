"""`graft report`: the page of a comparison."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from rich.console import Console

    from graft.page import Written


@dataclass(frozen=True)
class Options:
    """Write the page of a comparison: one HTML file with the answer, tables, charts and items that opens anywhere.

    Beside it: report.md for a repository, results.csv and results.parquet for further work.
    """

    run: Annotated[Path, "the folder that `graft compare` wrote"]


@dataclass(frozen=True)
class Result:
    """What was written."""

    written: "Written"
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """The answer, the files, and how many items the page holds of how many."""
        found = self.written
        return {
            "answer": found.answer, "page": str(found.page), "report": str(found.report),
            "results": [str(path) for path in found.results], "items": found.items, "items_in_all": found.total,
        }  # fmt: skip

    def show(self, console: "Console") -> None:
        """Print the answer, and where the files are."""
        from rich.filesize import decimal
        from rich.text import Text

        found = self.written
        console.print(Text(found.answer), "", sep="\n")
        console.print(
            Text("page: ", "bold").append(f"{found.page} ({decimal(found.page.stat().st_size)})"), soft_wrap=True
        )
        for path in (found.report, *found.results):
            console.print(Text(f"      {path}"), soft_wrap=True)
        if found.rule:
            console.print(Text(f"note: {found.rule}", "dim"), soft_wrap=True)


def run(options: Options) -> Result:
    """Read the standings and the items of a comparison, and write the page, the report and the tables."""
    from graft.page import write

    return Result(write(options.run))
