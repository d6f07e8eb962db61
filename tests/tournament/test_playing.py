"""Playing: nothing is run twice, who is killed goes on, and neither order nor names decide anything."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graft.tournament import running

Compare = Callable[..., Any]
# Imported once for all the processes that are killed, so that these are killed at work.
PRELOADED = ["graft.page", "graft.tournament.opening", "graft.tournament.standings", "graft.tournament.entrants.tfidf",
             "transformers.models.bert.modeling_bert", "accelerate", "datasets"]  # fmt: skip
TIMES = ("costs", "spread", "curve")  # what is measured and differs between runs


def table(result: Any) -> list[Any]:
    """The boards without what was measured in seconds."""
    boards = [{key: value for key, value in board.items() if key != "lines"} for board in result.standings["boards"]]
    lines = [{key: value for key, value in line.items() if key not in TIMES}
             for board in result.standings["boards"] for line in board["lines"]]  # fmt: skip
    return [boards, lines]


def test_no_trial_is_run_twice_and_who_joins_later_runs_alone(compared: Compare) -> None:
    first = compared()
    assert {path.name for path in (first.folder / "trials").iterdir()} == {t["id"] for t in first.standings["trials"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_tuned", None)  # anything that trains would fail, and its row would say so
        patch.setattr(running, "_fitted", None)
        assert table(compared()) == table(first)
    times = {path: path.stat().st_mtime_ns for path in first.folder.glob("trials/*/result.json")}
    second = compared(contestants=("majority", "tfidf", "bitfit", "head"))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(second.standings["trials"]) == len(times) + 2


@pytest.mark.slow
def test_order_and_names_decide_nothing(compared: Compare, tmp_path: Path) -> None:
    one = compared(contestants=("head", "tfidf", "again=head"), folder=tmp_path / "one")
    other = compared(contestants=("again=head", "tfidf", "head"), folder=tmp_path / "other")
    for name in ("head", "tfidf", "again"):
        lines = [next(line for line in result.standings["boards"][0]["lines"] if line["contestant"] == name)
                 for result in (one, other)]  # fmt: skip
        first, second = ({key: value for key, value in line.items() if key not in TIMES} for line in lines)
        assert first == second
    pairs = {(p["a"], p["b"]): p["comparison"]["outcome"] for p in one.standings["boards"][0]["pairs"]}
    assert pairs.get(("head", "again"), pairs.get(("again", "head"))) == "same"
    assert len(list((tmp_path / "one" / "trials").iterdir())) == 3  # two names, one way: one set of trials


@pytest.mark.slow
def test_processes_find_what_one_process_finds(compared: Compare, tmp_path: Path) -> None:
    alone = compared(folder=tmp_path / "alone", contestants=("majority", "head"))
    together = compared(folder=tmp_path / "together", contestants=("majority", "head"), workers=2)
    assert table(alone) == table(together)


def test_a_contestant_that_always_fails_is_a_row_with_its_error(compared: Compare) -> None:
    result = compared(contestants=("majority", "lora"), settings={"lora": {"lr": (1e30,)}})
    line = result.standings["boards"][0]["lines"][1]
    assert line["status"] == "failed" and "finite" in line["error"] and line["score"] is None
    assert result.standings["boards"][0]["best"] == "majority"


def test_who_cannot_enter_is_refused_with_the_reason(compared: Compare) -> None:
    line = compared(contestants=("majority", "zero_shot")).standings["boards"][0]["lines"][1]
    assert line["status"] == "refused" and "majority" in line["error"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_comparison_killed_twenty_times_ends_as_if_it_never_was(
    home: Path, compared: Compare, tmp_path: Path
) -> None:
    options = {"contestants": ("tfidf", "head", "bitfit"), "trials": 2, "steps": 30, "keep": True}
    whole = table(compared(folder=tmp_path / "whole", **options))
    process = _started(home, tmp_path / "timed", options)
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0
    length = time.monotonic() - began
    draw, killed, folders, total = random.Random(0), [], 1, len(_written(tmp_path / "whole"))
    while len(killed) < 20:
        folder = tmp_path / f"killed-{folders}"
        before = _written(folder)
        process = _started(home, folder, options)
        process.join(draw.uniform(0, length))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        done = _written(folder)
        if process.exitcode == -signal.SIGKILL:  # it may have ended by itself in the very moment
            killed.append(len(done))
        else:
            assert process.exitcode == 0
        if len(done) == total:
            assert table(compared(folder=folder, **options)) == whole
            folders += 1
        assert before.items() <= _written(folder).items(), "a finished trial was run again"
    assert len(set(killed)) > 5, "the moments are not spread over the run"
    before = _written(folder)
    assert table(compared(folder=folder, **options)) == whole
    assert before.items() <= _written(folder).items()
    assert not list(folder.glob("trials/*/.*")), "what was half-written is still there"


def _started(home: Path, folder: Path, options: dict[str, Any]) -> Any:
    """A comparison in a process of its own, which has read everything and now begins with the trials."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_compare, args=(str(home), folder, options))
    recipe = folder / "recipe.yaml"
    old = recipe.stat().st_mtime_ns if recipe.exists() else 0
    process.start()
    while not recipe.exists() or recipe.stat().st_mtime_ns == old:
        assert process.is_alive()
        time.sleep(0.005)
    return process


def _written(folder: Path) -> dict[Path, int]:
    """When each result was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}


def _compare(home: str, folder: Path, options: dict[str, Any]) -> None:
    import graft

    graft.compare(model=(f"{home}/bert",), data=(f"{home}/classes",), batch=8, checks=1, seeds=(0, 1), length=32,
                  dtype="fp32", folder=folder, **options)  # fmt: skip
