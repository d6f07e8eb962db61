"""`graft tune --upon`: a fusion of adapters that lie in folders, whatever tasks their heads were of."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import graft
import small
from graft import cli
from graft.errors import BadInput


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, rows of two classes, and rows of four places."""
    folder = tmp_path_factory.mktemp("upon")
    small.base(folder, "bert")
    for split, rows in {p.stem: small.lines(p) for p in small.classes(folder).iterdir()}.items():
        (folder / "places").mkdir(exist_ok=True)
        lines = [json.dumps({"text": row["text"], "label": row["text"].split()[-1]}) for row in rows]
        (folder / "places" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ends(home: Path) -> tuple[str, str]:
    """Two adapters, one for each task, with heads of two and of four labels."""
    for name in ("classes", "places"):
        tuned(home, name, method=graft.Pfeiffer(bottleneck=4), folder=home / "runs" / name, steps=4)
    return tuple(str(home / "runs" / name / "adapter") for name in ("classes", "places"))


def tuned(home: Path, rows: str, **options: Any) -> Any:
    given = {
        "model": str(home / "bert"),
        "data": str(home / rows),
        "steps": 6,
        "lr": 1e-2,
        "checks": 1,
        "dtype": "fp32",
    }
    return graft.tune(**given | options)


def test_a_fusion_of_folders_trains_and_holds_what_lies_in_them(home: Path, ends: Any, tmp_path: Path) -> None:
    result = tuned(home, "classes", method="adapter_fusion", upon=ends, folder=tmp_path / "run")
    assert result.tuned.adapter.method.adapters == ("classes", "places")
    made = load_file(tmp_path / "run/adapter/adapter.safetensors")
    for i, folder in enumerate(ends):
        theirs = {k: v for k, v in load_file(Path(folder) / "adapter.safetensors").items() if not k.startswith("head.")}
        assert theirs
        for key, tensor in theirs.items():
            part, _, name = key.rpartition(".")
            assert torch.equal(made[f"{part}.adapter_{i}.{name}"], tensor)
    assert {len(tensor) for key, tensor in made.items() if key.startswith("head.")} == {2}
    again = graft.evaluate(model=str(home / "bert"), adapter=str(tmp_path / "run/adapter"), data=str(home / "classes"))
    scores = result.as_json()["scores"]["metrics"]["accuracy"]
    assert again.as_json()["outcome"]["metrics"]["accuracy"] == scores


def test_side_by_side_with_a_head_of_their_own_task_and_another_method(home: Path, ends: Any, tmp_path: Path) -> None:
    result = tuned(home, "places", method="parallel+bitfit", upon=ends, folder=tmp_path)
    assert [term.slug() for term in result.tuned.adapter.method.methods()] == ["parallel", "bitfit"]


def test_the_command_line_and_its_recipe(home: Path, ends: Any, tmp_path: Path, capsys: Any) -> None:
    words = ["tune", "--model", str(home / "bert"), "--data", str(home / "places"), "--method", "adapter_fusion"]
    assert cli.main([*words, "--upon", *ends, "--folder", str(tmp_path / "run"), "--steps", "4", "--checks", "2"]) == 0
    before = load_file(tmp_path / "run/adapter/adapter.safetensors")
    assert cli.main(["tune", str(tmp_path / "run/recipe.yaml"), "--folder", str(tmp_path / "again")]) == 0
    after = load_file(tmp_path / "again/adapter/adapter.safetensors")
    assert before.keys() == after.keys() and all(before[key].equal(after[key]) for key in before)


def test_rows_that_an_adapter_saw_are_not_scored(home: Path, ends: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text((home / "classes/train.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    given = {"data": str(file), "method": graft.Pfeiffer(bottleneck=4), "steps": 2}
    for name, seed in (("same", 1), ("other", 2)):
        tuned(home, "classes", folder=tmp_path / name, seed=seed, **given)
    folders = (str(tmp_path / "same/adapter"), str(tmp_path / "other/adapter"))
    given |= {"method": "adapter_fusion", "upon": folders, "dry_run": True}
    alone = tuned(home, "classes", **given | {"method": "lora", "upon": ()}, seed=1).as_json()["task"]
    made = tuned(home, "classes", **given, seed=1)
    assert "rows that the adapters of --upon were trained on are not scored" in made.notes
    assert alone == "classification, 43 train, 9 validation, 12 test rows"
    assert made.as_json()["task"] == "classification, 43 train, 1 validation, 4 test rows"


@pytest.mark.parametrize(("method", "count", "said"), [
    ("lora", 2, "made of others, and lora is not"),
    ("adapter_fusion", 1, "must name several"),
    ("adapter_fusion", 0, "graft tune --upon A B"),
])  # fmt: skip
def test_refusals(home: Path, ends: Any, tmp_path: Path, method: str, count: int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        tuned(home, "classes", method=method, upon=ends[:count], folder=tmp_path / "run")
    with pytest.raises(BadInput, match="there is no folder"):
        tuned(home, "classes", method="adapter_fusion", upon=(ends[0], str(tmp_path / "none")), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
