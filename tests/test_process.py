"""graft as a process: how soon it answers, pipes and full disks, Ctrl-C, the completion of a shell."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cases
from graft import catalogue


def graft_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graft", *arguments], capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize(
    ("arguments", "limit"), [(["--help"], 0.3), *((([v, "--help"]), 1.5) for v in catalogue.verbs())]
)
def test_help_is_quick(arguments: list[str], limit: float) -> None:
    def seconds() -> float:  # of the processor, so that a busy machine does not fail the test
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert graft_process(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(seconds() < limit for _ in range(3))


@pytest.mark.parametrize("arguments", [["--help"], ["doctor", "--json"]])
def test_a_closed_pipe_is_quiet(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "graft", *arguments], stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 128 + signal.SIGPIPE and done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("arguments", cases.some([["--help"], ["doctor"], ["doctor", "--json"]], 2))
@pytest.mark.parametrize("unbuffered", cases.some(["", "1"]))
def test_output_that_cannot_be_written_is_one_line(arguments: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "graft", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (2, "error: cannot write the output: No space left on device.\n")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of loaded libraries")
@pytest.mark.parametrize("library", ["libcrypto", "libtorch_cpu", "libtorch_python"])
def test_ctrl_c_while_libraries_load(library: str) -> None:
    graft = [sys.executable, "-m", "graft", "generate", "sprout"]
    with subprocess.Popen(graft, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and library not in maps.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    # A shell says 130 of both: Python ends by the signal where it came within an exec, although it was caught.
    assert process.returncode in (130, -signal.SIGINT) and said == b"interrupted\n"


@pytest.mark.parametrize("shell", cases.some(["bash", "zsh", "fish"]))
def test_completion_is_installed_where_the_shell_looks(shell: str, tmp_path: Path) -> None:
    home = {**os.environ, "HOME": str(tmp_path), "ZSH": "", "ZSH_CUSTOM": ""}
    done = graft_process("--install-completion", "--shell", shell, env=home)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.split()[1].rstrip(";"))
    assert path.is_relative_to(tmp_path) and "doctor" in path.read_text()
