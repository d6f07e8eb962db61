"""`graft plug`: an adapter of a small model, written for a larger one, used alone by the other verbs; refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import graft
import small
from graft import checkpoint, cli
from graft.errors import BadInput, Refused

Runs = Callable[[str], Any]


@pytest.fixture(scope="module")
def large(home: Path) -> Path:
    """A llama as wide as half again, and with one layer more."""
    import transformers

    folder = home / "larger"
    config = transformers.AutoConfig.from_pretrained(home / "llama", hidden_size=24, num_hidden_layers=3, head_dim=12)
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    small.tokenizer().save_pretrained(folder)
    return folder


def test_it_is_an_ordinary_adapter_of_the_larger_model(
    home: Path, runs: Runs, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, rows, made = str(runs("answers").tuned.folder), str(home / "answers"), tmp_path / "plugged"
    assert cli.main(["plug", adapter, str(large), rows, str(made), "--name", "wide", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 <= found["mismatch"] < found["mismatch_unfitted"] and "graft evaluate" in found["command"]
    record = checkpoint.read(made)
    assert record.name == "wide" and record.extra["task"] and record.extra["plugged"]["fit"] == "least_squares"
    result = graft.evaluate(model=str(large), adapter=str(made), data=rows, rows=4)
    assert len(result.found.systems["adapter"]) == 4
    assert cli.main(["generate", str(large), "--adapter", str(made), "--prompt", "cat in the field"]) == 0


def test_refusals(home: Path, runs: Runs, large: Path, tmp_path: Path) -> None:
    adapter, rows = str(runs("answers").tuned.folder), str(home / "answers")
    given = {"adapter": adapter, "model": str(large), "data": rows, "output": tmp_path / "made"}
    with pytest.raises(Refused, match="task head of its own"):
        graft.plug(**{**given, "adapter": str(runs("classes").tuned.folder)})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(BadInput, match="no graft adapter"):
        graft.plug(**{**given, "output": tmp_path / "taken"})
    with pytest.raises(Refused, match="other tokens"):
        graft.plug(**{**given, "model": "sprout"})
    with pytest.raises(BadInput, match="is not it"):
        graft.plug(**{**given, "small": str(large)})
    assert not (tmp_path / "made").exists()


def test_tuning_says_how_one_is_made(home: Path) -> None:
    with pytest.raises(BadInput, match="graft plug ADAPTER"):
        graft.tune(model=str(home / "llama"), data=str(home / "answers"), method="plug_in", dry_run=True)
