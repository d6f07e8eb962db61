"""Folders, files by split, saved data sets and rows from memory."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from graft import data
from graft.errors import BadInput

ROWS = [{"text": f"row number {number} of this small set", "label": "ab"[number % 2]} for number in range(40)]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(rows: Any) -> list[str]:
    return [row["text"] for row in rows]


def sizes(loaded: data.DataSets) -> dict[str, int]:
    return {split: len(rows) for split, rows in loaded.splits.items()}


def test_a_folder_with_files_by_split(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", ROWS[:20])
    lines(tmp_path / "dev.jsonl", ROWS[20:30])
    lines(tmp_path / "test.jsonl", ROWS[30:])
    (tmp_path / "README.md").write_text("not data")
    loaded = data.load(tmp_path)
    assert sizes(loaded) == {"train": 20, "validation": 10, "test": 10}
    assert loaded.train[3].where == f"{tmp_path / 'train.jsonl'}:4"
    assert (loaded.kind, loaded.task) == ("text,label", "classification")


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"],
        ["data/train-0.jsonl", "data/train-1.jsonl", "data/test.jsonl"],
        ["train/0.jsonl", "train/1.jsonl", "test/0.jsonl"],
    ],
)
def test_shards_and_nested_folders(names: list[str], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        lines(tmp_path / name, ROWS[number * 10 : number * 10 + 10])
    loaded = data.load(tmp_path, splits=(1, 0, 0))
    assert texts(loaded.train) == texts(ROWS[:20])
    assert texts(loaded.test) == texts(ROWS[20:30])


def test_files_named_by_split(tmp_path: Path) -> None:
    train, test = lines(tmp_path / "a.jsonl", ROWS[:30]), lines(tmp_path / "b.jsonl", ROWS[30:])
    by_text = data.load(f"train={train},test={test}", splits=(1, 0, 0))
    by_mapping = data.load({"train": train, "test": ROWS[30:]}, splits=(1, 0, 0))
    assert sizes(by_text) == sizes(by_mapping) == {"train": 30, "test": 10}
    assert by_text.hash == by_mapping.hash
    assert by_mapping.test[0].where == "test:1"


def test_rows_from_memory_and_from_the_datasets_library(tmp_path: Path) -> None:
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "both")
    made.to_parquet(tmp_path / "rows.parquet")
    sources: list[Any] = [ROWS, (row for row in ROWS), made, tmp_path / "saved", tmp_path / "rows.parquet"]
    hashes = {data.load(source, splits="train").hash for source in sources}
    assert len(hashes) == 1
    assert sizes(data.load(tmp_path / "both", splits=(1, 0, 0))) == {"train": 40, "test": 40}
    assert data.load(ROWS, splits="test").test[7].where == "rows:8"


def test_names_of_classes_come_with_the_data(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["world", "sports"])}
    )
    made = datasets.Dataset.from_list([{"text": f"t {n}", "label": n % 2} for n in range(6)], features=features)
    made.to_parquet(tmp_path / "rows.parquet")
    for source in (made, tmp_path / "rows.parquet"):
        assert [row["label"] for row in data.load(source, splits="train").train] == ["world", "sports"] * 3
    hidden = datasets.Dataset.from_list([{"text": "t", "label": -1}], features=features)
    with pytest.raises(BadInput, match=r"rows:1 +no label \(-1\)"):
        data.load(hidden)
    tagged = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
        }
    )
    tags = datasets.Dataset.from_list([{"tokens": ["a", "Bo"], "ner_tags": [0, 1]}], features=tagged)
    assert data.load(tags, splits="train").train[0]["tags"] == ["O", "B-PER"]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(BadInput, match=r"no file or folder .* \(did you mean 'train.jsonl'\?\)\.$"):
        data.load(tmp_path / "trian.jsonl")
    with pytest.raises(BadInput, match="no data set of this id could be loaded"):
        data.load("nobody/nothing-of-this-name")
    with pytest.raises(BadInput, match="cannot read rows from int"):
        data.load(7)
    with pytest.raises(BadInput, match=r"rows:2 +a row must be a mapping"):
        data.load([ROWS[0], 7])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no data file"):
        data.load(tmp_path / "empty")
    with pytest.raises(BadInput, match="there are no rows"):
        data.load([])


def test_two_candidates_for_one_split_are_refused(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", ROWS)
    lines(tmp_path / "validation_matched.jsonl", ROWS)
    lines(tmp_path / "validation_mismatched.jsonl", ROWS)
    with pytest.raises(BadInput, match="validation_matched and validation_mismatched could each be validation"):
        data.load(tmp_path)
    lines(tmp_path / "other" / "a.jsonl", ROWS)
    lines(tmp_path / "other" / "b.jsonl", ROWS)
    with pytest.raises(BadInput, match="which is train"):
        data.load(tmp_path / "other")
