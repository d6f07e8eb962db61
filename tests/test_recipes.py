"""The recipes are what their verb takes, and their rows are rows of their task."""

import json
from pathlib import Path
from typing import Any

import pytest

from graft import data
from graft.method import Method, named
from graft.options.command import Call, parse

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml")) if (ROOT / "recipes/rows").is_dir() else []
COMPARED = [path for path in RECIPES if "contestants:" in path.read_text()]
EXPERIMENTS = [path for path in COMPARED if path.parent.name == "experiments"]
SHIPPED = [path for path in COMPARED if path not in EXPERIMENTS]
TUNE = [path for path in RECIPES if path not in COMPARED and "data:" in path.read_text()]


def named_by_stem(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def called(verb: str, path: Path, *arguments: str) -> Call:
    call = parse([verb, str(path), *arguments])
    assert call is not None and call.verb == verb
    return call


@named_by_stem(TUNE)
def test_a_recipe_is_read_and_its_rows_are_of_its_task(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = called("tune", path).options
    found = data.load(
        options["data"], task=options.get("task"), template=options.get("template"), splits=options["splits"]
    )
    assert found.task == path.stem
    assert all(len(rows) > 0 for rows in (found.train, found.validation, found.test))
    method = options["method"]
    assert isinstance(method, Method) or named(method).methods()


def test_there_is_a_recipe_for_every_kind_of_task() -> None:
    from graft.data.tasks import kinds

    assert set(kinds()) - {"verbalized"} <= {path.stem for path in TUNE}


@named_by_stem(COMPARED)
def test_a_comparison_is_a_valid_design(path: Path) -> None:
    """Options are checked and contestants made of their settings; no model and no row is read."""
    from graft.data.columns import parse_columns
    from graft.data.rows import check_allowances
    from graft.data.splits import check_fractions
    from graft.data.templates import columns_of
    from graft.tournament import opening
    from graft.verbs import compare

    design = opening.designed(compare.Options(**called("compare", path).options))
    check_allowances(design.allow)
    check_fractions(design.splits)
    for rows in design.data:
        parse_columns(rows.columns)
        assert rows.template is None or columns_of(rows.template)
    assert len({each.name for each in design.contestants}) == len(design.contestants)


@named_by_stem([path for path in EXPERIMENTS if not path.stem.endswith("-small")])
def test_an_experiment_has_a_small_form_with_its_contestants(path: Path) -> None:
    small = called("compare", path.with_name(f"{path.stem}-small.yaml")).options
    given = called("compare", path).options
    assert set(given["contestants"]) <= set(small["contestants"])


@named_by_stem(COMPARED)
def test_a_comparison_has_a_folder_of_its_own(path: Path) -> None:
    assert called("compare", path).options["folder"] == Path("runs") / path.stem


@named_by_stem(EXPERIMENTS)
def test_the_page_of_experiments_has_every_one(path: Path) -> None:
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    assert f"recipes/experiments/{path.name}" in page


@pytest.mark.slow
@named_by_stem(SHIPPED)
def test_a_shipped_comparison_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For two steps, with one seed; the whole takes a minute or two."""
    from graft.verbs import compare

    monkeypatch.chdir(ROOT)
    shorter = ["--steps", "2", "--seeds", "0", "--test-rows", "3", "--folder", str(tmp_path / "run")]
    result = compare.run(compare.Options(**called("compare", path, *shorter).options))
    [board] = result.standings["boards"]
    assert {line["contestant"]: line["status"] for line in board["lines"]} == {
        each["name"]: "done" for each in result.standings["contestants"]
    }
    assert json.loads((tmp_path / "run/standings.json").read_text())["answer"]
    assert (tmp_path / "run/page.html").is_file()
