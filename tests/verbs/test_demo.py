"""`graft demo` on a tiny base: every step of the real one, a second for each contestant."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import graft
from graft.errors import BadInput


def test_it_ends_with_a_table_adapters_and_the_page(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.data.stdlib.functions", _few)
    names = ("zero_shot", "lora", "bitfit")
    result = graft.demo(base=str(home / "llama"), folder=tmp_path, contestants=names, seconds=1, rows=8)
    shown = io.StringIO()
    result.show(Console(width=160, file=shown))
    told = json.loads(json.dumps(result.as_json()))
    lines = told["boards"][0]["lines"]
    assert [line["contestant"] for line in lines] == list(names) and told["boards"][0]["rows"]["test"] == 8
    assert [line["status"] for line in lines] == ["done"] * 3 and told["boards"][0]["reference"] == "zero_shot"
    assert len(list(tmp_path.glob("trials/*/adapter/adapter.safetensors"))) == 2
    assert (tmp_path / "page.html").stat().st_size > 10_000 and "page.html" in shown.getvalue()
    assert [sample.keys() >= {"input", "reference", *names} for sample in told["samples"]] == [True] * 3
    assert all(name in shown.getvalue() for name in (*names, "one seed, no search"))


def test_an_unknown_contestant_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lora"):
        graft.demo(contestants=("lorra",), folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"seconds": 0.0}, {"seconds": float("nan")}, {"seed": -1}])
def test_numbers_that_do_not_serve_are_refused_at_once(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"{next(iter(wrong))} must be"):
        graft.demo(folder=tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def _few(longest: int = 1000, library: object = None) -> list[object]:
    """Short functions in many modules, in place of the whole standard library."""
    from graft.data.stdlib import Function

    words = ("apple", "river", "stone", "cloud", "field", "light", "paper", "glass", "wheel", "bread")
    pairs = [(a, b) for a in words for b in words if a != b]
    return [
        Function(
            f"def get_{a}_{b}():\n    return {a!r} + {b!r}", f"Return the {a} of the {b}.", f"m{i}", f"get_{a}_{b}"
        )
        for i, (a, b) in enumerate(pairs)
    ]
