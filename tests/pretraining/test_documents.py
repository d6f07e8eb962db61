"""Documents found, split by their path, and packed once."""

from pathlib import Path

import numpy as np
import pytest

from graft.errors import BadInput
from graft.pretraining.documents import Documents, find_documents, pack
from graft.pretraining.tokenizer import train_tokenizer

LINE = "the list of a file and the name of a path that is read\n"
TOKENIZER = train_tokenizer([LINE * 3], "bpe", 280)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(200):
        path = tmp_path / "text" / f"part{number % 7}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number} " + LINE)
    return tmp_path / "text"


def names(documents: list[tuple[Path, Path]]) -> set[str]:
    return {path.name for _, path in documents}


def test_a_document_stays_on_its_side_when_others_come(folder: Path) -> None:
    before = find_documents([folder], 0.1)
    assert len(before.training) + len(before.held_out) == 200 and 5 < len(before.held_out) < 40
    for number in range(200, 260):
        (folder / f"{number}.md").write_text(LINE)
    after = find_documents([folder], 0.1)
    assert names(before.held_out) <= names(after.held_out) and names(before.training) <= names(after.training)
    assert names(find_documents([folder], 0.1, seed=1).held_out) != names(after.held_out)


def test_packed_tokens_are_the_text_with_an_end_after_each_document(folder: Path, tmp_path: Path) -> None:
    documents = find_documents([folder], 0.1)
    packed = pack(documents, TOKENIZER, tmp_path / "packed")
    assert packed.training.dtype == np.uint16
    for tokens, files in ((packed.training, documents.training), (packed.held_out, documents.held_out)):
        ends = np.flatnonzero(tokens == TOKENIZER.eos_token_id)
        parts = np.split(tokens, ends + 1)[:-1]
        assert [TOKENIZER.decode(part[:-1]) for part in parts] == [path.read_text() for _, path in files]
    assert packed.held_out_bytes == sum(len(path.read_bytes()) for _, path in documents.held_out)


def test_packing_is_done_again_only_when_something_changed(folder: Path, tmp_path: Path) -> None:
    pack(find_documents([folder], 0.1), TOKENIZER, tmp_path / "packed")
    first = (tmp_path / "packed" / "training.npy").stat().st_ino
    pack(find_documents([folder], 0.1), TOKENIZER, tmp_path / "packed")
    assert (tmp_path / "packed" / "training.npy").stat().st_ino == first
    (folder / "part0" / "0.txt").write_text(LINE * 2)
    tokens = pack(find_documents([folder], 0.1), TOKENIZER, tmp_path / "packed").training
    assert (tmp_path / "packed" / "training.npy").stat().st_ino != first and len(tokens)


def test_errors_name_every_folder_and_the_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty \(no text file .*nowhere \(no such folder\)"):
        find_documents([folder, tmp_path / "empty", tmp_path / "nowhere"])
    with pytest.raises(BadInput, match="no folder given"):
        find_documents([])
    with pytest.raises(BadInput, match="leave no held-out document"):
        find_documents([folder], 1e-9)
    bad = folder / "part1" / "bad.txt"
    bad.write_bytes(b"\xff\xfe not text")
    with pytest.raises(BadInput, match=r"cannot read .*bad\.txt as UTF-8"):
        pack(Documents([(folder, bad)], [(folder, bad)]), TOKENIZER, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
