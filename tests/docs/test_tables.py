"""What the docs' tables say, against what it is said of."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from docs.pages import DOCS
from graft.scoring import outcome
from graft.verbs import demo


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(DOCS))
    import tables

    yield tables
    sys.modules.pop("tables")


def records(texts: list[str], loss: float) -> list[dict[str, Any]]:
    shared = {"references": ["return the sum"], "reference": "return the sum", "tokens": 4}
    return [{"item": item, "output": text, "loss": loss, **shared} for item, text in enumerate(texts)]


def test_results_are_what_the_demo_measured(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = records(["a b c"] * 12, 8.0), records(["return the sum"] * 12, 4.0)
    entry = SimpleNamespace(
        name="lora", trainable=57_344, stored=229_376, folder=tmp_path, records=after,
        outcome=outcome(("rougeL", "loss", "perplexity"), before, after, other="lora"),
        fit=SimpleNamespace(steps=10, seconds=35.0, peak_memory=300 * 2**20),
    )  # fmt: skip
    told = demo.Result(demo.Options(), {"train": 4093, "validation": 100, "test": 12}, {}, [entry], []).as_json()
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.json")
    assert tables.results() == "", "without measurements there is no table"
    tables.RESULTS.write_text(json.dumps(told), "utf-8")
    lines = tables.results().splitlines()
    assert "**sprout**" in lines[0] and "4,093" in lines[0] and "12 of the standard library" in lines[0]
    assert lines[4] == "| the base, untouched | 0 | | | 7.4 | 0.0 | |"  # exp(8 / 4)
    assert lines[5] == "| LoRA | 57,344 | 229 kB | 300 MiB | 2.7 | 100.0 | +100.0 (+100.0 to +100.0) |"


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
