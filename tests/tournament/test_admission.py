"""Admission: what no base can take is told before anything is begun, what some cannot is a row of theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cases
import graft
from graft.attach import detach
from graft.errors import BadInput, GraftError
from graft.tournament.arena import Arena
from graft.tournament.contestant import assembled
from graft.tournament.design import Design, Rows
from graft.tournament.running import NAME, entered
from graft.verbs.compare import Options

Compare = Callable[..., Any]
UNREAD = ("pissa", "magnitude_mask", "fish_mask", "second_order_mask", "ladder_side")  # what begins from weights


@pytest.mark.parametrize("dry_run", [True, False])
def test_all_who_can_enter_nowhere_are_told_at_once(compared: Compare, tmp_path: Path, dry_run: bool) -> None:
    with pytest.raises(BadInput) as told:
        compared(
            "llama", "answers", contestants=("majority", "low=lora", "idpt", "hyperformer", "adapter_fusion", "ia3"),
            settings={"low": {"rank": (4, 5000)}}, sizes=(8, 0), dry_run=dry_run,
        )  # fmt: skip
    lines = str(told.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["low rank=5000", "idpt", "hyperformer", "adapter_fusion"]
    assert "choose at most 16" in lines[0] and "column `task`" in lines[2] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"contestants": ("prompt_tuning",), "settings": {"prompt_tuning": {"tokens": 64}}},
            "none of the 64 positions",
        ),
        ({"contestants": ("prompt_tuning",), "settings": {"prompt_tuning": {"tokens": 60}}}, "leave them 4 of"),
        ({"contestants": ("meft",), "checkpointing": True}, "leave --checkpointing off"),
        ({"contestants": ("lora",), "settings": {"lora": {"sites": "zzz"}}}, "unknown word 'zzz'"),
    ],
)
def test_what_a_trial_would_stumble_over_is_told(compared: Compare, given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        compared(**given, dry_run=True)


def test_who_can_enter_somewhere_is_a_row_where_it_cannot(home: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "model": (str(home / "llama"), str(home / "bert")), "data": (str(home / "classes"),), "seeds": (0,),
        "contestants": ("majority", "idpt"), "steps": 2, "batch": 8, "checks": 1, "trials": 1, "length": 32,
        "folder": tmp_path / "run", "keep": False, "dtype": "fp32", "test_rows": 4,
    }  # fmt: skip
    planned = graft.compare(**options, dry_run=True).planned
    assert [line.split(":")[0] for line in planned if "refused" in line] == ["    refused on classes-llama"]
    lines = [board["lines"][1] for board in graft.compare(**options).standings["boards"]]
    assert [line["status"] for line in lines] == ["refused", "done"] and "made of the whole row" in lines[0]["error"]


def test_who_was_not_asked_for_is_a_row(compared: Compare) -> None:
    planned = compared("llama", "answers", contestants=Options.contestants, dry_run=True).planned
    assert any("refused on answers: TopLayers has nothing to train" in line for line in planned)


@pytest.mark.parametrize(
    "name", cases.some([*UNREAD, *(name for name in cases.NAMES if name not in UNREAD)], len(UNREAD))
)
@pytest.mark.parametrize("base", ["bert", "llama"])
def test_a_base_without_weights_takes_what_the_base_takes(home: Path, base: str, name: str) -> None:
    rows = {"bert": "classes", "llama": "answers"}[base]
    design = Design((str(home / base),), (Rows(str(home / rows)),), tuple(assembled(["majority"], {})), length=32)
    arena = Arena(design, design.models[0], 0)

    def outcome(model: Any) -> Any:
        try:
            counts = entered(design, arena, model, cases.method(name)).counts
        except GraftError as error:
            return type(error), str(error)
        detach(model, NAME)
        return counts.trainable, counts.head

    assert outcome(arena.bare()) == outcome(arena.model)
