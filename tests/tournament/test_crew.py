"""Who runs the trials: a worker that dies, Ctrl-C, a command that is killed, a Ray cluster that loses a node."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from graft.errors import BadInput
from graft.tournament import entrants

from .test_playing import table

Compare = Callable[..., Any]
LONG = ("--contestants", "head", "bitfit", "lora", "--trials", "2", "--seeds", "0", "1", "--steps", "60",
        "--batch", "8", "--length", "32", "--dtype", "fp32", "--no-keep")  # fmt: skip


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the contestant `deadly` beside the others."""
    import deadly as module

    names, find = entrants.names, entrants.find
    monkeypatch.setattr(entrants, "names", lambda: [*names(), "deadly"])
    monkeypatch.setattr(entrants, "find", lambda name: module.Deadly if name == "deadly" else find(name))


def lines(result: Any) -> dict[str, Any]:
    return {line["contestant"]: line for line in result.standings["boards"][0]["lines"]}


def started(home: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """A comparison in a session of its own, as a terminal gives it."""
    command = [sys.executable, "-m", "graft", "compare", "--model", str(home / "bert"), "--data", str(home / "classes")]
    return subprocess.Popen(
        [*command, "--folder", str(folder), *LONG, *options], start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(folder: Path) -> dict[Path, int]:
    """When each result was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}


def wait_for_results(folder: Path, process: subprocess.Popen[str], count: int = 1) -> None:
    while len(finished(folder)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def members(session: int) -> list[psutil.Process]:
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def all_end(session: int) -> bool:
    """Whether all processes of a session end within seconds, the last ones after whom they served."""
    until = time.monotonic() + 10
    while members(session) and time.monotonic() < until:
        time.sleep(0.1)
    return not members(session)


@pytest.mark.slow
@pytest.mark.usefixtures("deadly")
def test_a_trial_whose_process_dies_is_run_again_and_in_the_end_has_failed(compared: Compare, tmp_path: Path) -> None:
    settings = {
        "once": {"marks": (str(tmp_path / "once"),)},
        "always": {"marks": (str(tmp_path / "always"),), "times": (99,)},
        "leaves": {"marks": (str(tmp_path / "leaves"),), "times": (99,), "signal": (0,)},
    }
    result = compared(contestants=("always=deadly", "once=deadly", "leaves=deadly", "majority", "head"),
                      settings=settings, workers=2)  # fmt: skip
    found = lines(result)
    assert {name: line["status"] for name, line in found.items()} == {
        "always": "failed", "once": "done", "leaves": "failed", "majority": "done", "head": "done",
    }  # fmt: skip
    assert "all 3 times" in found["always"]["error"] and "killed" in found["always"]["error"]
    assert "exit code 7" in found["leaves"]["error"]
    # Who was in flight beside a trial that killed its process is not to blame, and not disturbed.
    assert {name: len(list((tmp_path / name).iterdir())) for name in settings} == {"always": 3, "once": 2, "leaves": 3}
    assert found["once"]["score"] == found["majority"]["score"]
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    options = f"model=[{str(home / 'bert')!r}], data=[{str(home / 'classes')!r}], contestants=['majority'], workers=2"
    script.write_text(f"import graft\ngraft.compare({options}, folder={str(tmp_path / 'run')!r})\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=100)
    assert run.returncode == 1 and '`if __name__ == "__main__":`' in run.stderr.splitlines()[-1]
    assert not finished(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_says_what_is_done_and_the_same_command_goes_on(home: Path, tmp_path: Path, workers: str) -> None:
    process = started(home, tmp_path, "--workers", workers)
    wait_for_results(tmp_path, process, 2)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=30)
    before = finished(tmp_path)
    assert (process.returncode, out) == (130, "")
    assert error == (f"interrupted: {len(before)} of 12 trials are done and kept; "
                     "the same command goes on from there\n")  # fmt: skip
    assert all_end(process.pid)
    again = started(home, tmp_path, "--workers", workers)
    out, error = again.communicate(timeout=100)
    assert (again.returncode, error) == (0, "")
    after = finished(tmp_path)
    assert len(after) == 12 and before.items() <= after.items()
    assert all_end(again.pid)


@pytest.mark.slow
def test_workers_end_with_a_command_that_is_killed(home: Path, tmp_path: Path) -> None:
    process = started(home, tmp_path, "--workers", "2")
    wait_for_results(tmp_path, process)
    assert len(members(process.pid)) >= 3
    process.kill()
    process.communicate(timeout=10)
    assert all_end(process.pid)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Ray cluster of two nodes with a core each: its address, and the second node, whose session is its own."""
    pytest.importorskip("ray", reason='the extra "scale" (ray) is not installed')
    address = f"127.0.0.1:{free_port()}"
    place = tempfile.mkdtemp(dir="/tmp")  # sockets in it have names that a longer path would make too long
    tests = str(Path(__file__).parent.parent)
    # A user's token, which Ray finds by itself in some of these processes and not in others, is not for here.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": tests}
    common = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", "--num-gpus=0",
              "--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]  # fmt: skip
    head = ["--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false", f"--temp-dir={place}",
            f"--ray-client-server-port={free_port()}"]  # fmt: skip
    running = []
    with open(f"{place}/nodes.log", "wb") as log:
        for own in (head, [f"--address={address}"]):
            running.append(subprocess.Popen([*common, *own], cwd=place, env=environment, stdout=log, stderr=log,
                                            start_new_session=True))  # fmt: skip
            wait_for_node(address, Path(place), len(running))
    yield address, running[1]
    for process in reversed(running):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert all(all_end(process.pid) for process in running)
    shutil.rmtree(place)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for_node(address: str, place: Path, count: int) -> None:
    """Wait until so many nodes of a cluster say that they have started."""
    until = time.monotonic() + 60
    while (said := (place / "nodes.log").read_text()).count("Ray runtime started") < count:
        assert time.monotonic() < until, said
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_loses_a_node_loses_nothing(
    compared: Compare, nodes: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, second = nodes
    monkeypatch.chdir(tmp_path)  # which is where a relative folder is meant from, on the nodes as well
    options = {"contestants": ("majority", "head", "bitfit", "lora"), "steps": 60, "trials": 2}
    lost: list[int] = []

    def lose() -> None:
        while len(finished(tmp_path / "cluster")) < 3 or not busy(second.pid):
            time.sleep(0.05)
        lost.append(len(finished(tmp_path / "cluster")))
        os.killpg(second.pid, signal.SIGKILL)

    watcher = threading.Thread(target=lose, daemon=True)
    watcher.start()
    found = compared(folder=Path("cluster"), ray=address, keep=True, **options)
    watcher.join(1)
    assert lost and lost[0] < len(found.standings["trials"]) == 13
    assert not members(second.pid)
    assert table(found) == table(compared(folder=tmp_path / "alone", **options))
    assert (
        len(list((tmp_path / "cluster").glob("trials/*/adapter/graft.json"))) == 2
    )  # of bitfit and lora; a head in place is none


def busy(session: int) -> bool:
    """Whether a node runs a trial: Ray calls the process by the task."""
    return any("ray::_work" in " ".join(process.cmdline()) for process in members(session))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("deadly")
def test_a_cluster_gives_up_a_trial_that_kills_its_worker(
    compared: Compare, nodes: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    settings = {"deadly": {"marks": (str(tmp_path / "marks"),), "times": (99,)}}
    found = lines(compared(contestants=("deadly", "majority"), settings=settings, ray=nodes[0]))
    assert found["deadly"]["status"] == "failed" and "died, all 3 times" in found["deadly"]["error"]
    assert found["majority"]["status"] == "done"
    assert len(list((tmp_path / "marks").iterdir())) == 3


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "nonsense"])
def test_an_address_without_a_cluster_is_told_at_once(compared: Compare, address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='the extra "scale" (ray) is not installed')
    began = time.monotonic()
    with pytest.raises(BadInput, match=f"--ray {address}: no Ray cluster answers there") as told:
        compared(contestants=("majority",), ray=address)
    assert "\n" not in str(told.value) and time.monotonic() - began < 20


def test_without_ray_the_extra_is_named(compared: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r'--ray needs the extra "scale"'):
        compared(contestants=("majority",), ray="local")
