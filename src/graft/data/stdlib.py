"""A real code-summarization set from the user's own standard library: function without docstring → its first line.

Rows are {"prompt", "completion", "module", "name"}. Whole top-level modules go to one split, so that nothing leaks, and
a function that nearly repeats one of another split is dropped from the smaller split's neighbor (see `_apart`).
"""

import ast
import hashlib
import json
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from graft.errors import BadInput
from graft.files import write_text

SPLITS = ("train", "validation", "test")
_SHARES = (0.84, 0.92, 1.0)
_SKIPPED = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__", "ensurepip", "turtledemo", "pydoc_data"})
_PLAIN = re.compile(r"[A-Z][A-Za-z0-9 ,.'\"`()\[\]{}<>=+*/:;_%&#@!?|~^$-]*$")


@dataclass(frozen=True)
class Row:
    """One function: `prompt` is its source without the docstring, `completion` the docstring's first line."""

    prompt: str
    completion: str
    module: str
    name: str


def build(folder: str | Path, seed: int = 0, longest: int = 700) -> dict[str, int]:
    """Write train.jsonl, validation.jsonl and test.jsonl; return how many rows each has.

    longest: characters of a prompt. The same Python and seed give the same files. Raises BadInput when this Python
    has no standard library source to read.
    """
    splits = split(rows(longest), seed)
    if not splits["train"] or not splits["test"]:
        raise BadInput(f"no documented functions under {sysconfig.get_path('stdlib')}: this Python comes without its source. Use another one.")
    for name, chosen in splits.items():
        text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in chosen)
        write_text(Path(folder) / f"{name}.jsonl", text)
    return {name: len(chosen) for name, chosen in splits.items()}


def rows(longest: int = 700, library: str | Path | None = None) -> list[Row]:
    """Every usable documented function of the standard library, in a fixed order, no two with the same body or the same pair."""
    root = Path(library or sysconfig.get_path("stdlib"))
    found: dict[str, Row] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _SKIPPED & set(parts):
            continue
        for row in _functions(path, ".".join(parts)[:-3].removesuffix(".__init__")):
            if len(row.prompt) <= longest:
                found.setdefault(_shape(row.prompt), row)
    return list(found.values())


def split(found: list[Row], seed: int = 0) -> dict[str, list[Row]]:
    """Rows by split: the hash of the top-level module decides; rows that nearly repeat one of an earlier split are dropped."""
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in found:
        share = _share(row.module.split(".")[0].lstrip("_"), seed)
        splits[next(name for name, end in zip(SPLITS, _SHARES, strict=True) if share < end)].append(row)
    return _apart(splits)
