"""python -m benchmarks.experiments [--only NAME]: the small form of every recipe in recipes/experiments, one by one.

Needs `shared/data` and `shared/models` beside this repository, as the recipes do. What is done is skipped. Each report
is kept beside this file, and README.md says what came out of each.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.acceptance.material import minilm
from graft.files import write_text

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "recipes/experiments"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
HEAD = """# The experiments' small forms, run

`python -m benchmarks.experiments` on two cores that did other work too, so times say little. Models and rows are small:
what is shown is that each experiment runs, and the shape of its result, not a published number.

| experiment | boards | scores | not done | what came out |
|---|--:|--:|---|---|
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare what is not compared yet; 1 when a comparison failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("--only", default="", help="part of the recipe's name")
    parser.add_argument("--folder", type=Path, default=Path("runs/experiments"), help="where the trials are kept")
    given = parser.parse_args(argv)
    failed = []
    for recipe in sorted(RECIPES.glob("*-small.yaml"), key=lambda path: path.stem):
        if given.only in recipe.stem and compare(recipe, given.folder / recipe.stem):
            failed.append(recipe.stem)
    summarize(given.folder)
    print("failed: " + ", ".join(failed) if failed else "all done")
    return int(bool(failed))


def compare(recipe: Path, folder: Path) -> int:
    """Run one comparison in a process of its own, and keep its report; the exit code."""
    if recipe.stem.startswith("code-projects"):
        subprocess.run([sys.executable, RECIPES / "projects.py", "library", "runs/projects"], check=True)
    model = ["--model", minilm()] if ENCODER in recipe.read_text(encoding="utf-8") else []
    command = [sys.executable, "-m", "graft", "compare", recipe, *model, "--folder", folder]
    code = subprocess.run(command).returncode
    if code == 0:
        report = (folder / "report.md").read_text(encoding="utf-8")
        write_text(
            HERE / f"{recipe.stem}.md", report.replace(minilm(), "all-MiniLM-L6-v2").replace(str(folder), "runs")
        )
    return code


def summarize(folder: Path) -> None:
    """Write the table of all that is done."""
    text = HEAD
    for report in sorted(HERE.glob("*-small.md")):
        with (folder / report.stem / "results.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        missing = ", ".join(f"{line['contestant']} on {line['board']}" for line in lines if line["status"] != "done")
        sentence = report.read_text(encoding="utf-8").split("\n\n")[1].replace("\n", " ")
        name = report.stem.removesuffix("-small")
        boards = len({line["board"] for line in lines})
        text += f"| [{name}]({report.name}) | {boards} | {len(lines)} | {missing} | {sentence} |\n"
    write_text(HERE / "README.md", text)


if __name__ == "__main__":
    sys.exit(main())
