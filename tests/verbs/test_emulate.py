"""`graft emulate`: an emulator on disk, tuned by the other verbs, its ends used on the full model; refusals."""

import json
from pathlib import Path

import pytest
import torch
import transformers

import graft
import small
from graft import cli
from graft.errors import BadInput, Refused


def test_from_the_full_model_and_back(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, rows, emulator = _deep(tmp_path), str(home / "answers"), tmp_path / "emulator"
    arguments = ["emulate", full, str(emulator), "--ends", "1", "--keep", "0.4", "--distill", rows, "--steps", "2"]
    assert cli.main([*arguments, "--length", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == "0 2 4" and found["middle_off_by"] > 0 and "--method offsite" in found["command"]
    run = graft.tune(
        model=str(emulator), data=rows, method=graft.Offsite(1), folder=tmp_path / "run", steps=3, lr=1e-2, length=32,
        test_rows=4,
    )  # fmt: skip
    ends = str(run.tuned.folder)
    assert len(graft.evaluate(model=full, adapter=ends, data=rows, rows=4).found.systems["adapter"]) == 4
    assert cli.main(["generate", full, "--adapter", ends, "--prompt", "cat in the field"]) == 0
    with pytest.raises(BadInput, match="is not that model"):
        graft.evaluate(model=str(home / "llama"), adapter=ends, data=rows, rows=4)
    with pytest.raises(Refused, match="an emulator itself"):
        graft.emulate(model=str(emulator), output=tmp_path / "again")


def _deep(folder: Path) -> str:
    base = small.base(folder, "llama")
    config = transformers.AutoConfig.from_pretrained(base, num_hidden_layers=5)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(base)
    return str(base)


def test_refusals(home: Path, tmp_path: Path) -> None:
    model = str(home / "llama")
    with pytest.raises(BadInput, match="2 blocks are too few"):
        graft.emulate(model=model, output=tmp_path / "made", ends=1)
    with pytest.raises(BadInput, match=r"of 5 blocks, 0 would be between the ends\. Choose 1 to 2\."):
        graft.emulate(model=_deep(tmp_path), output=tmp_path / "made", ends=3)
    with pytest.raises(BadInput, match="is there already"):
        graft.emulate(model=model, output=home)
    with pytest.raises(BadInput, match="keep must be above 0"):
        graft.emulate(model=model, output=tmp_path / "made", keep=0.0)
    assert not (tmp_path / "made").exists()
