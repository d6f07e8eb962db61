"""What the docs' tables say, against what it is said of."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from docs.pages import DOCS


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(DOCS))
    import tables

    yield tables
    sys.modules.pop("tables")


def test_results_are_what_the_demo_measured(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.csv")
    assert tables.results() == "", "without measurements there is no table"
    about = {"model": "sprout", "rows_train": "4093", "rows_test": "12"}
    base = {"contestant": "zero_shot", "score": "0.31", "metric_perplexity": "186.04", "cost_trainable": "0"}
    lora = {
        "contestant": "lora", "score": "19.86", "metric_perplexity": "31.2", "cost_trainable": "57344",
        "cost_stored_bytes": "229376", "cost_training_seconds": "30.04", "cost_peak_bytes": str(300 * 2**20),
        "against_reference_difference": "19.55", "against_reference_low": "17.5", "against_reference_high": "21.8",
    }  # fmt: skip
    with tables.RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*about, *lora])
        writer.writeheader()
        writer.writerows([about | base, about | lora])
    lines = tables.results().splitlines()
    assert "**sprout**" in lines[0] and "4,093" in lines[0] and "12 of the standard library" in lines[0]
    assert lines[4] == "| LoRA | 57,344 | 229 kB | 30 s | 300 MiB | 31.2 | 19.9 | +19.6 (+17.5 to +21.8) |"
    assert lines[5] == "| zero-shot | 0 | – | – | – | 186.0 | 0.3 |  |"


def test_every_name_of_a_column_is_in_the_table(tables: ModuleType) -> None:
    text = tables.kinds()
    from graft.data.kinds import KINDS

    for kind in KINDS:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{kind.name}` |"))
        for alternative in kind.alternatives[1:]:
            names = [column for _, column in alternative]
            assert f"`{','.join(names)}`" in row or all(
                f"`{name}`" in row or name == role or f"`{','.join(names[:-1])}`" in row
                for (role, _), name in zip(alternative, names, strict=True)
            ), (kind.name, names)
