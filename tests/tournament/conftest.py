"""A comparison small enough to be played in seconds: a random BERT, two kinds of texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graft


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with bases and rows."""
    import small

    folder = tmp_path_factory.mktemp("tournament")
    for kind in ("bert", "llama"):
        small.base(folder, kind)
    small.classes(folder)
    small.answers(folder)
    return folder


@pytest.fixture
def compared(home: Path, tmp_path: Path) -> Callable[..., Any]:
    """`compared(contestants=(...))`: the result of comparing on the small rows, a few steps each."""

    def compare(base: str = "bert", rows: str = "classes", **given: Any) -> Any:
        options: dict[str, Any] = {
            "contestants": ("majority", "tfidf", "bitfit"), "steps": 12, "batch": 8, "checks": 1, "seeds": (0, 1),
            "trials": 1, "length": 32, "folder": tmp_path / "run", "keep": False, "dtype": "fp32",
        }  # fmt: skip
        return graft.compare(model=(str(home / base),), data=(str(home / rows),), **(options | given))

    return compare
