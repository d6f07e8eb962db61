"""python -m benchmarks.comparison small | full: `graft compare` on all-MiniLM-L6-v2; what is done is skipped."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.acceptance.material import minilm
from graft.files import write_text

HERE = Path(__file__).parent
DATA = {"small": ("trec", "sst2"), "full": ("trec", "sst2", "subj", "sick", "ag_news")}
KEPT = ("page.html", "report.md", "results.csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, and keep the page, the report and the table beside this file, as small-page.html and so on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("what", choices=tuple(DATA))
    parser.add_argument("--data", type=Path, default=Path("data"), help=f"folder with {', '.join(DATA['full'])}")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the trials are kept")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    given = parser.parse_args(argv)

    from graft.cli import main as graft

    folder = given.folder / f"bench-{given.what}"
    code = graft([
        "compare", str(HERE / f"{given.what}.yaml"), "--model", minilm(), "--folder", str(folder),
        "--workers", str(given.workers), "--data", *(str(given.data / name) for name in DATA[given.what]),
    ])  # fmt: skip
    if code == 0:
        keep(folder, given.what, {minilm(): "all-MiniLM-L6-v2", str(given.data): "data", str(given.folder): "runs"})
    return code


def keep(folder: Path, what: str, places: Mapping[str, str]) -> None:
    """Copy page, report and table here, with the places of the machine under other names."""
    for name in KEPT:
        text = (folder / name).read_text(encoding="utf-8")
        for place, other in places.items():
            text = text.replace(place, other)
        write_text(HERE / f"{what}-{name}", text)


if __name__ == "__main__":
    sys.exit(main())
