"""Tiny bases and rows on disk, and one finished run of `graft tune` for each kind of task, made once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with bases and rows."""
    import small

    folder = tmp_path_factory.mktemp("verbs")
    for kind in ("bert", "llama"):
        small.base(folder, kind)
    small.classes(folder)
    small.answers(folder)
    return folder


@pytest.fixture(scope="session")
def runs(home: Path) -> Callable[[str], Any]:
    """`runs("classes")`: the result of tuning on these rows, in `home`/runs/ROWS."""
    import graft

    made: dict[str, Any] = {}

    def run(rows: str) -> Any:
        if rows not in made:
            base = {"classes": "bert", "answers": "llama"}[rows]
            made[rows] = graft.tune(
                model=str(home / base), data=str(home / rows), method=graft.LoRA(rank=8, sites="all-linear"), name=rows,
                folder=home / "runs" / rows, steps=80, batch=16, lr=1e-2, checks=4, length=32, dtype="fp32",
            )  # fmt: skip
        return made[rows]

    return run


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`typed("one\\ntwo\\n")`: what stands on the standard input."""
    import io

    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))
