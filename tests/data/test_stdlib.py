"""The demo's data set: real functions, no docstring left in a prompt, no module on two sides."""

import ast
import json
from pathlib import Path

import pytest

from graft.data.duplicates import near, normalize
from graft.data.stdlib import SPLITS, Function, build, functions, split, summary

SOURCE = '''
"""Module docstring."""


class Box:
    def open(self, key):
        """Open the box with the given key.

        More is said here.
        """
        # the lock first
        self.lock.turn(key)
        return self.lid

    @property
    def size(self):
        """Volume of the box, which is
        measured from inside. It never changes."""
        return self.a * self.b * self.c

    def empty(self):
        """Nothing but a docstring is no example."""

    def close(self): "Shares the line of the docstring here."; return 1


def told(parser):
    """Print the help of this program."""
    parser.description = "print the help of this program"


def undocumented(a):
    return a
'''


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("stdlib")
    counts = build(folder)
    rows = {name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()] for name in SPLITS}
    assert counts == {name: len(found) for name, found in rows.items()}
    return rows


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "__init__.py").write_text(SOURCE)
    (tmp_path / "boxes" / "broken.py").write_text("def f(:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_boxes.py").write_text(SOURCE)
    return tmp_path


def test_rows_are_the_documented_functions_without_their_docstring(library: Path) -> None:
    assert functions(library=library) == [
        Function(
            "def open(self, key):\n    # the lock first\n    self.lock.turn(key)\n    return self.lid",
            "Open the box with the given key.",
            "boxes",
            "Box.open",
        ),
        Function(
            "@property\ndef size(self):\n    return self.a * self.b * self.c",
            "Volume of the box, which is measured from inside.",
            "boxes",
            "Box.size",
        ),
    ]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Close the file.", "Close the file."),
        ("Close the file\n\nMore.", "Close the file"),
        ("Return e.g. a file. Then more.", "Return e.g. a file."),
        ("Return a file that\nis open.", "Return a file that is open."),
        ("Return a file that\nis open", None),
    ],
)
def test_summary_is_one_whole_sentence(docstring: str, expected: str | None) -> None:
    assert summary(docstring) == expected


def test_this_python_gives_thousands_of_rows_in_three_splits(built: dict[str, list[dict]]) -> None:
    total = sum(map(len, built.values()))
    assert total > 3000
    assert all(0.05 * total < len(built[name]) < 0.15 * total for name in ("validation", "test"))


def test_no_module_is_in_two_splits(built: dict[str, list[dict]]) -> None:
    modules = {name: {row["module"].split(".")[0].lstrip("_") for row in rows} for name, rows in built.items()}
    assert not modules["train"] & modules["test"]
    assert not modules["train"] & modules["validation"]
    assert not modules["validation"] & modules["test"]


def test_no_function_nearly_repeats_one_of_another_split(built: dict[str, list[dict]]) -> None:
    texts = {name: [normalize(row["prompt"]) for row in rows] for name, rows in built.items()}
    assert not set(texts["train"]) & set(texts["test"])
    assert not near(texts["test"], texts["train"])
    assert not near(texts["validation"], texts["train"])


def test_every_prompt_is_a_function_that_does_not_tell_its_summary(built: dict[str, list[dict]]) -> None:
    for row in (row for rows in built.values() for row in rows):
        (node,) = ast.parse(row["prompt"]).body
        assert ast.get_docstring(node) is None
        assert node.name == row["name"].split(".")[-1]
        assert row["completion"].rstrip(".").lower() not in row["prompt"].lower()


def test_the_same_seed_gives_the_same_splits_and_another_seed_others(library: Path) -> None:
    rows = [Function(f"def f{n}(): pass", "Do some work here.", f"m{n}", f"f{n}") for n in range(200)]
    assert split(rows, 1) == split(rows, 1) != split(rows, 2)
    assert sorted(row.name for side in split(rows, 1).values() for row in side) == sorted(row.name for row in rows)
