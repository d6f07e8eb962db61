"""`graft tune` that is refused, stopped, or asked for again: what is left behind, and how it goes on."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import graft
import small
from graft import cli
from graft.errors import BadInput, Refused
from graft.training import checkpoints

Runs = Callable[[str], Any]
NAN = float("nan")


def stop_at(step: int) -> Callable[..., None]:
    """A moment of `Watch` in which the user asks for the end of the run, after a step."""

    def stop(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == step:
            self.stop()
            control.should_training_stop = True

    return stop


def test_a_folder_with_a_run_is_not_overwritten(home: Path, runs: Runs) -> None:
    runs("classes")
    options = {"model": str(home / "bert"), "data": str(home / "classes"), "folder": home / "runs" / "classes"}
    recipe = (home / "runs" / "classes" / "recipe.yaml").read_bytes()
    with pytest.raises(BadInput, match=r"classes holds a finished run\. Choose another --folder or --name"):
        graft.tune(**options)
    dry = graft.tune(**options, dry_run=True)
    assert any("a run would be refused" in note and "holds a finished run" in note for note in dry.notes)
    with pytest.raises(BadInput, match=r"belongs to another run: .*batch was 16, is 32.*Give the same options"):
        graft.tune(**options, resume=True)
    assert (home / "runs" / "classes" / "recipe.yaml").read_bytes() == recipe


def test_another_base_or_length_is_another_run(home: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": str(home / "classes"), "folder": tmp_path / "run", "steps": 3, "lr": 1e-2}
    graft.tune(**options, model=str(home / "bert"))
    other = small.base(tmp_path, "bert", hidden_act="relu")
    with pytest.raises(BadInput, match=f"another run: base was '{home}/bert', is '{other}'"):
        graft.tune(**options, model=str(other), resume=True)
    with pytest.raises(BadInput, match="another run: max_length was 64, is 32"):
        graft.tune(**options, model=str(home / "bert"), length=32, resume=True)


def test_a_run_that_stopped_says_where_and_is_not_overwritten(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"model": str(home / "bert"), "data": str(home / "classes"), "folder": tmp_path,
                               "steps": 4, "lr": 1e-2, "checks": 4}  # fmt: skip
    with monkeypatch.context() as context:
        context.setattr("graft.training.watch.Watch.on_evaluate", stop_at(2), raising=False)
        with pytest.raises(KeyboardInterrupt, match="saved at step 2; --resume goes on from there"):
            graft.tune(**options)
    with pytest.raises(BadInput, match=r"holds a run that stopped at step 2\. Go on with it by --resume"):
        graft.tune(**options)
    assert graft.tune(**options, resume=True).tuned.fit.steps == 4


def test_what_is_refused_before_training_leaves_nothing_and_can_be_tried_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"model": str(home / "bert"), "data": str(home / "classes"),
                               "folder": tmp_path / "some" / "run", "steps": 3, "lr": 1e-2}  # fmt: skip
    with monkeypatch.context() as context:
        context.setattr("graft.training.space.SLACK", 2**60)
        with pytest.raises(BadInput, match="MiB are free and the run needs"):
            graft.tune(**options)
    assert not (tmp_path / "some").exists()
    with monkeypatch.context() as context:
        context.setattr("graft.training.trainer.GraftTrainer.compute_loss", lambda *_, **__: torch.tensor(math.nan))
        context.setattr("graft.memory.kept_bytes", lambda forward: 1)
        context.setattr("accelerate.Accelerator.backward", lambda *_: None)
        with pytest.raises(Refused, match="not a finite number at step 1"):
            graft.tune(**options)
    assert graft.tune(**options).tuned.fit.steps == 3


def test_a_finished_run_can_be_resumed_for_its_report(home: Path, tmp_path: Path) -> None:
    options = {
        "model": str(home / "bert"),
        "data": str(home / "classes"),
        "folder": tmp_path,
        "steps": 4,
        "lr": 1e-2,
        "checks": 2,
    }
    first, again = graft.tune(**options), graft.tune(**options, resume=True)
    assert again.tuned.fit.steps == 4
    assert again.as_json()["scores"] == first.as_json()["scores"]


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_loaded(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    started = time.monotonic()
    with pytest.raises(BadInput, match="cannot write"):
        graft.tune(model="no-such-model", data="no-such-rows", folder=tmp_path / "file" / "run")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--epochs", "0"], "epochs must be above 0"),
        (["--steps", "3", "--minutes", "1"], "steps or a time budget"),
        (["--metric", "acuracy"], "Did you mean accuracy"),
        (["--device", "tpu9"], "no device is called so"),
        (["--report-to", "tensorbord"], "did you mean tensorboard?"),
    ],
)
def test_wrong_options_are_refused_with_the_remedy(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], message: str
) -> None:
    folder = ["--folder", str(tmp_path / "run")]
    assert cli.main(["tune", str(home / "bert"), str(home / "classes"), *folder, *wrong]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_it_does(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["tune", str(home / "bert"), str(home / "classes"), "--folder", str(folder), "--steps", "150",
                 "--batch", "8", "--lr", "0.005", "--checks", "4"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "graft", *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    log = folder / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 5):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    found = re.search(r"interrupted: saved at step (\d+); .*: graft (tune \S+ --resume)", told)
    assert found and checkpoints(folder / "checkpoints")[-1].name == f"step-{int(found[1]):08d}"
    assert cli.main(found[2].split()) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 151))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"general_text": "nosuch.txt"}, "cannot read the general text"),
        ({"metric": "accuracy"}, "does not serve generation, which has"),
    ],
)
@pytest.mark.parametrize("verb", ["tune", "evaluate"])
def test_what_is_measured_in_the_end_is_checked_before_the_work(
    runs: Runs, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], message: str,
    verb: str,
) -> None:  # fmt: skip
    adapter = str(runs("answers").tuned.folder)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("graft.training.tuning.score", never)
    monkeypatch.setattr("graft.scoring.evaluation.outcome", never)
    more = {"folder": tmp_path / "run"} if verb == "tune" else {"adapter": adapter}
    with pytest.raises(BadInput, match=message):
        getattr(graft, verb)(model=str(home / "llama"), data=str(home / "answers"), **more, **wrong)


def test_nothing_learned_is_lost_when_the_report_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("graft.training.tuning.outcome", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        graft.tune(model=str(home / "bert"), data=str(home / "classes"), folder=tmp_path, steps=3, lr=1e-2)
    study_model = graft.evaluate(
        model=str(home / "bert"), data=str(home / "classes"), adapter=str(tmp_path / "adapter")
    )
    assert study_model.found.outcome is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"validation_rows": -3}, "validation_rows must be at least 0, got -3"),
        ({"test_rows": -3}, "test_rows must be at least 0"),
        ({"show_mask": -3}, "show_mask must be at least 0"),
        ({"batch": 0}, "batch must be above 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 10**22}, "seed must be below"),
        ({"minutes": NAN}, "minutes must be a finite number"),
        ({"clip": NAN, "lr": NAN}, "lr must be a finite number, got nan; clip must be a finite number"),
        ({"splits": (NAN, 0.1, 0.1)}, "three shares"),
        ({"model": ""}, "model must not be empty"),
        ({"data": " "}, "data must not be empty"),
        ({"model": "sprot"}, "Did you mean the bundled base sprout"),
    ],
)
def test_a_refused_run_leaves_nothing(home: Path, tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    folder = tmp_path / "some" / "run"
    options = {"model": str(home / "bert"), "data": str(home / "classes"), "folder": folder, **wrong}
    with pytest.raises(BadInput, match=message):
        graft.tune(**options)
    assert not (tmp_path / "some").exists()


def test_nothing_to_resume_is_said(home: Path, tmp_path: Path) -> None:
    options = {"model": str(home / "bert"), "data": str(home / "classes"), "folder": tmp_path, "steps": 3, "lr": 1e-2}
    assert any(f"nothing to resume in {tmp_path}" in note for note in graft.tune(**options, resume=True).notes)
    assert not any("nothing to resume" in note for note in graft.tune(**options, resume=True).notes)


def test_checkpointing_layers_that_run_in_their_own_way_is_refused_in_a_dry_run_too(home: Path, tmp_path: Path) -> None:
    given = {"model": str(home / "llama"), "data": str(home / "answers"), "method": graft.MEFT(bottleneck=2)}
    with pytest.raises(Refused, match="leave --checkpointing off"):
        graft.tune(**given, checkpointing=True, dry_run=True, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
