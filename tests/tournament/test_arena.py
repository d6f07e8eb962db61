"""Arenas: the same rows for everyone, smaller boards inside larger ones, heads drawn from the seed alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from graft.errors import BadInput
from graft.tournament.arena import Arena, Arenas
from graft.tournament.contestant import assembled
from graft.tournament.design import Design, Place, Rows
from graft.tournament.entrants.lstm import LSTM


def design(home: Path, base: str = "bert", *rows: str, **given: Any) -> Design:
    data = tuple(Rows(str(home / name)) for name in rows or ("classes",))
    return Design((str(home / base),), data, tuple(assembled(["majority"], {})), length=32, **given)


def test_rows_of_a_smaller_size_are_among_those_of_a_larger_one(home: Path) -> None:
    arena = Arena(design(home), str(home / "bert"), 0)
    few, more = ({row.where for row in arena.rows(size)} for size in (10, 40))
    assert len(few) == 10 and len(more) == 40 and few < more
    assert len(arena.rows(0)) == len(arena.rows(1000)) == 64


def test_who_has_few_rows_to_train_on_has_few_to_choose_by(home: Path) -> None:
    made = design(home, validation_rows=500)
    assert [made.validation(rows) for rows in (10, 100, 1000)] == [50, 100, 500]
    assert [design(home, validation_rows=0).validation(rows) for rows in (10, 1000)] == [50, 1000]


def test_an_entrant_has_the_validation_rows_of_its_board(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.tournament.design.FEWEST", 4)
    seen: list[int] = []
    monkeypatch.setattr("graft.tournament.entrants.lstm._train", lambda *given: seen.append(len(given[-1])))
    arena = Arena(design(home, validation_rows=20), str(home / "bert"), 0)
    for size in (8, 0):
        LSTM().fit(arena, arena.rows(size), 0)
        assert seen.pop() == len(arena.held_back(size)) == min(size or 20, len(arena.data.validation))


def test_a_head_comes_from_the_seed_whatever_was_before(home: Path) -> None:
    made = design(home)

    def head(seed: int, *before: int) -> torch.Tensor:
        arena = Arena(made, str(home / "bert"), 0)
        for each in (*before, seed):
            arena.begin(each)
        return arena.model.classifier.weight.detach().clone()  # type: ignore[union-attr,operator]

    assert torch.equal(head(1), head(1, 0, 2)) and not torch.equal(head(1), head(2))


def test_a_base_that_writes_is_asked_for_the_word(home: Path) -> None:
    assert Arena(design(home, "llama"), str(home / "llama"), 0).task.kind == "verbalized"
    chosen = design(home, "llama", task="classification")
    assert Arena(chosen, str(home / "llama"), 0).task.kind == "classification"


def test_the_same_base_is_read_once_for_two_data_sets(home: Path) -> None:
    arenas = Arenas(design(home, "bert", "classes", "classes"))
    first = arenas.ready(Place(0, 0, 0)).model
    assert arenas.ready(Place(0, 1, 0)).model is first
    assert "base" not in arenas.at(Place(0, 0, 0)).__dict__


def test_rows_without_a_test_part_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text((home / "classes" / "train.jsonl").read_text())
    with pytest.raises(BadInput, match="no test rows"):
        Arena(design(tmp_path, "bert", "."), str(home / "bert"), 0)
