"""A run that is killed goes on as if nothing had happened, and nothing torn is ever picked up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import graft
from graft.errors import BadInput
from graft.training import TrainingOptions, checkpoints, fit
from graft.training.resume import copy_of
from graft.training.tuning import Study, prepared

Make = Callable[..., Study]
LONG = TrainingOptions(steps=24, batch=8, lr=5e-3, checks=6, accumulate=2, schedule="cosine")


def go(study: Study, folder: Path, options: TrainingOptions = LONG, resume_from: Path | None = None) -> dict[str, Any]:
    """Train LoRA with dropout; the tensors it ends with."""
    adapter = prepared(study.model, graft.LoRA(rank=4, dropout=0.2), "small", study.tokenizer, 0)
    rows = study.task.features(study.train, study.tokenizer, train=True)
    held = study.task.features(study.validation, study.tokenizer)
    fit(
        study.model, study.tokenizer, study.task, rows, held, adapter, options, folder=folder, resume_from=resume_from
    )  # fmt: skip
    return copy_of(adapter)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The log, without the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Equal bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def whole(study: Make, tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the run gives when nothing interrupts it."""
    tensors = go(study(), tmp_path / "whole")
    return tensors, curve(tmp_path / "whole")


def cut(folder: Path, at: int) -> Path:
    """The checkpoint at a step, with everything later removed, as if the run had been killed after it."""
    for path in checkpoints(folder / "checkpoints"):
        if path.name > f"step-{at:08d}":
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    return checkpoints(folder / "checkpoints")[-1]


@pytest.mark.parametrize(("checks", "at"), [(6, 20), (3, 16)], ids=["within an epoch", "between epochs"])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(study: Make, tmp_path: Path, checks: int, at: int) -> None:
    # An epoch is 8 steps. There is dropout, accumulation and a cosine.
    options = replace(LONG, checks=checks)
    whole = go(study(), tmp_path / "whole", options)
    go(study(), tmp_path / "cut", options)
    tensors = go(study(), tmp_path / "cut", options, cut(tmp_path / "cut", at))
    assert same(tensors, whole) and curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_a_finished_run_is_not_trained_again(
    study: Make, tmp_path: Path, whole: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    last = checkpoints(tmp_path / "whole" / "checkpoints")[-1]
    assert same(go(study(), tmp_path / "whole", resume_from=last), whole[0])
    assert curve(tmp_path / "whole") == whole[1]


def test_nothing_is_pickled_and_two_checkpoints_are_kept(study: Make, tmp_path: Path) -> None:
    go(study(), tmp_path)
    found = checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in found] == ["step-00000020", "step-00000024"]
    assert {file.suffix for path in found for file in path.iterdir()} == {".json", ".safetensors"}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {path.name for path in found}


@pytest.mark.parametrize("damage", ["missing", "short", "no list", "aside"])
def test_a_torn_checkpoint_is_never_picked_up(study: Make, tmp_path: Path, damage: str) -> None:
    go(study(), tmp_path, TrainingOptions(steps=4, batch=8, lr=5e-3, checks=2))
    first, last = checkpoints(tmp_path / "checkpoints")
    if damage == "missing":
        (last / "optimizer.safetensors").unlink()
    elif damage == "short":
        with (last / "tensors.safetensors").open("r+b") as file:
            file.truncate(100)
    elif damage == "no list":
        (last / "complete.json").write_text('{"facts.js')
    else:
        last.rename(last.with_name(f".{last.name}.abc123"))
    assert checkpoints(tmp_path / "checkpoints") == [first]


def test_another_run_is_refused(study: Make, tmp_path: Path) -> None:
    short = TrainingOptions(steps=4, batch=8, lr=5e-3, checks=2)
    go(study(), tmp_path, short)
    last = checkpoints(tmp_path / "checkpoints")[-1]
    other = TrainingOptions(steps=4, batch=16, lr=1e-3, checks=2)
    with pytest.raises(BadInput, match=r"another run: batch was 8, is 16; lr was 0.005, is 0.001"):
        go(study(), tmp_path, other, last)


def test_the_curve_has_no_line_twice_after_a_kill_between_checkpoints(
    study: Make, tmp_path: Path, whole: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    go(study(), tmp_path / "cut")
    log = tmp_path / "cut" / "metrics.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-2]) + '\n{"step": 23, "lo')  # killed while it wrote a line
    tensors = go(study(), tmp_path / "cut", resume_from=cut(tmp_path / "cut", 20))
    assert same(tensors, whole[0]) and curve(tmp_path / "cut") == whole[1]


def kill(home: Path, folder: Path, ready: Callable[[], bool]) -> None:
    """Run in a process of its own, and kill it as soon as `ready`."""
    script = (
        "import sys, pathlib; sys.path[:0] = sys.argv[3:]; import test_resume\n"
        "test_resume.run_alone(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    )
    here = Path(__file__).parent
    process = subprocess.Popen([sys.executable, "-c", script, str(home), str(folder), str(here), str(here.parent)])
    deadline = time.monotonic() + 100
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it was killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


SLOW = TrainingOptions(steps=96, batch=8, lr=5e-3, checks=12, accumulate=2)


def run_alone(home: Path, folder: Path) -> None:
    """What the killed process does."""
    from small import study_of

    go(study_of(home), folder, SLOW)


def steps(folder: Path) -> int:
    """How many steps the log tells of."""
    log = folder / "metrics.jsonl"
    return log.read_text().count('"loss"') if log.exists() else 0


def writing(folder: Path) -> bool:
    """Whether a checkpoint is being written, and another one is there."""
    names = [path.name for path in (folder / "checkpoints").glob("*")] + [
        path.name for path in (folder / "checkpoints").glob(".step-*")
    ]
    return any(name.startswith(".step-") for name in names) and any(name.startswith("step-") for name in names)


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "between checkpoints": lambda folder: steps(folder) >= 21,
    "before the first checkpoint": lambda folder: steps(folder) >= 3,
    "while a checkpoint is written": writing,
}


@pytest.mark.parametrize("moment", cases.some(MOMENTS, 0))
def test_a_killed_process_resumes_bit_for_bit(home: Path, study: Make, tmp_path: Path, moment: str) -> None:
    assert os.environ["OMP_NUM_THREADS"] == "1"  # bits depend on the number of threads
    whole = go(study(), tmp_path / "whole", SLOW)
    kill(home, tmp_path / "killed", lambda: MOMENTS[moment](tmp_path / "killed"))
    assert steps(tmp_path / "killed") < 96
    found = checkpoints(tmp_path / "killed" / "checkpoints")
    assert bool(found) == (moment != "before the first checkpoint")
    tensors = go(study(), tmp_path / "killed", SLOW, found[-1] if found else None)
    assert same(tensors, whole)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
