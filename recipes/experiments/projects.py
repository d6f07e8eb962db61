"""Rows of code and what it does, one file for each project, for code-projects.yaml and its small form.

python recipes/experiments/projects.py library runs/projects   packages of your own Python's standard library
python recipes/experiments/projects.py java runs/projects      Java projects in CodeXGLUE's code-to-text, from the hub
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from graft.data import stdlib
from graft.files import write_text

LIBRARY = ("asyncio", "importlib", "logging")
JAVA = ("spring-projects/spring-boot", "spring-projects/spring-framework", "spring-projects/spring-security",
        "apache/flink", "apache/kafka")  # fmt: skip
Row = dict[str, str]


def library() -> Iterator[tuple[str, Row]]:
    """The package and the row of each function."""
    for each in stdlib.functions():
        yield each.module.split(".")[0], {"prompt": each.prompt, "completion": each.completion}


def java() -> Iterator[tuple[str, Row]]:
    """The project and the row of each method: its tokens without the comment, and the comment's first paragraph."""
    import datasets

    for rows in datasets.load_dataset("google/code_x_glue_ct_code_to_text", "java").values():
        for row in rows:
            summary = " ".join(row["docstring_tokens"])
            yield row["repo"], {"prompt": " ".join(row["code_tokens"]), "completion": summary}


def main(kind: str, folder: str) -> None:
    """Write one file for each project, and say how many rows each has; none for a project without rows."""
    wanted, pairs = {"library": (LIBRARY, library), "java": (JAVA, java)}[kind]
    found: dict[str, list[Row]] = {project: [] for project in wanted}
    for project, row in pairs():
        if project in found:
            found[project].append(row)
    for project, rows in found.items():
        path = Path(folder) / f"{project.rpartition('/')[2]}.jsonl"
        if rows:
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        print(f"{path}: {len(rows):,} rows" + ("" if rows else "; leave it out of the recipe's data"))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("library", "java"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
