"""Showing trees: neighbors that are equal fold, others do not."""

from graft.anatomy.tree import ranges, tree

MODULES = [
    ("", "Net", ""),
    ("layers", "ModuleList", ""),
    *(row for i in range(4) for row in [
        (f"layers.{i}", "Layer", ""),
        (f"layers.{i}.a", "Linear", f"weight {5 if i == 3 else 4}×4"),
        (f"layers.{i}.drop", "Dropout", ""),
    ]),
    ("head", "Linear", "weight 2×4"),
]  # fmt: skip


def test_equal_neighbors_fold_and_modules_without_parameters_go() -> None:
    assert tree(MODULES).splitlines() == [
        "Net",
        "  layers: ModuleList",
        "    0-2 ×3: Layer",
        "      a: Linear (weight 4×4)",
        "    3: Layer",
        "      a: Linear (weight 5×4)",
        "  head: Linear (weight 2×4)",
    ]


def test_a_mark_keeps_its_layer_apart() -> None:
    lines = tree(MODULES, marks={"layers.1.a": "q", "layers.2.a": "q"}).splitlines()
    assert lines[2:6] == [
        "    0: Layer",
        "      a: Linear (weight 4×4)",
        "    1-2 ×2: Layer",
        "      a: Linear (weight 4×4)  ← q",
    ]


def test_a_part_of_the_tree() -> None:
    assert tree(MODULES, "layers.3").splitlines() == ["layers.3: Layer", "  a: Linear (weight 5×4)"]
    assert tree(MODULES, "layers").splitlines()[0] == "layers: ModuleList"


def test_ranges() -> None:
    assert ranges([]) == "" and ranges([3]) == "3" and ranges({5, 0, 1, 2, 7, 8}) == "0-2 5 7-8"
