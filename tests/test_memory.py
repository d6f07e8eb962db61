"""Memory: the peak is what was taken, what a forward keeps is counted, and a lack of it is recognized."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from graft import memory
from graft.errors import Refused

STRETCHES = """
import torch
from graft import memory

for size in (200, 20):
    with memory.Peak(torch.device("cpu")) as peak:
        block = torch.ones(size * 2**18)  # `size` MiB
        del block
    print(peak.bytes, peak.kind)
"""


@pytest.mark.skipif(not memory._RESET.exists(), reason="the peak can be reset on Linux only")
def test_the_peak_is_of_the_stretch_alone() -> None:
    # In a process of its own: what other work left on the heap would hide the difference.
    told = subprocess.run([sys.executable, "-c", STRETCHES], capture_output=True, text=True, check=True).stdout
    (large, first), (small, second) = (line.split() for line in told.splitlines())
    assert first == second == "resident"
    assert 150 * 2**20 < int(large) - int(small) < 250 * 2**20


def test_what_a_forward_keeps_is_counted() -> None:
    weight = torch.nn.Parameter(torch.ones(32, 16))
    x = torch.ones(100, 16)

    def forward() -> torch.Tensor:
        return (torch.nn.functional.linear(x, weight).exp() ** 2).sum()

    # x for the weight's gradient; exp keeps its result, which the square keeps too.
    assert memory.kept_bytes(forward) == 4 * (100 * 16 + 100 * 32)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_recognized(error: Exception, expected: bool) -> None:
    assert memory.ran_out(error) is expected


def test_portions_halve_until_they_fit_and_lose_no_row() -> None:
    seen: list[int] = []

    def work(part: list[int]) -> list[int]:
        seen.append(len(part))
        if len(part) > 3:
            raise MemoryError
        return list(part)

    portions = memory.Portions(16)
    found = list(portions.each(list(range(20)), work))  # type: ignore[arg-type]
    assert [row for part in found for row in part] == list(range(20))
    assert seen[:4] == [16, 8, 4, 2] and portions.size == 2

    def never(part: list[int]) -> None:
        raise MemoryError("nothing left")

    with pytest.raises(Refused, match=r"single row \(nothing left\)"):
        list(memory.Portions(4).each([1, 2], never))  # type: ignore[arg-type]


def test_there_is_memory_here() -> None:
    assert 2**20 < memory.available(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(("limit", "room"), [("5000", 5000 - 4000 + 3000), ("max", None)])
def test_files_in_a_container_s_cache_are_room(
    limit: str, room: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"max": limit, "current": "4000", "stat": "anon 900\ninactive_file 3000\nfile 3100"}.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n", encoding="utf-8")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    found = memory.available(torch.device("cpu"))
    assert found == room if room is not None else found > 2**20


def test_counting_what_a_forward_keeps_keeps_none_of_it() -> None:
    made: list[weakref.ref] = []

    def forward() -> torch.Tensor:
        x = torch.randn(50, 50, requires_grad=True)
        y = x.softmax(-1)  # whose graph keeps its own output
        made.extend((weakref.ref(x), weakref.ref(y)))
        return y.square().sum()

    assert memory.kept_bytes(forward) == 50 * 50 * 4  # y, which the square keeps too
    gc.collect()
    assert [each() for each in made] == [None, None]
