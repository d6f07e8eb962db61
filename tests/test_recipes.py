"""The recipes are what their verb takes, and their rows are rows of their task."""

from pathlib import Path

import pytest

from graft import data
from graft.method import Method, named
from graft.options.command import parse

ROOT = Path(__file__).parents[1]
TUNE = sorted(
    path
    for path in (ROOT / "recipes").glob("*.yaml")
    if (ROOT / "recipes/rows").is_dir() and "data:" in path.read_text()
)


@pytest.mark.parametrize("path", TUNE, ids=[path.stem for path in TUNE])
def test_a_recipe_is_read_and_its_rows_are_of_its_task(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    call = parse(["tune", str(path)])
    assert call is not None and call.verb == "tune"
    options = call.options
    found = data.load(
        options["data"], task=options.get("task"), template=options.get("template"), splits=options["splits"]
    )
    assert found.task == path.stem
    assert all(len(rows) > 0 for rows in (found.train, found.validation, found.test))
    method = options["method"]
    assert isinstance(method, Method) or named(method).methods()


def test_there_is_a_recipe_for_every_kind_of_task() -> None:
    from graft.data.tasks import kinds

    assert set(kinds()) <= {path.stem for path in TUNE}
