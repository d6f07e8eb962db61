"""Memory: what a stretch of work takes at its peak, what is free, what a forward keeps, and when it ran out."""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil
import torch

from graft.errors import Refused

T = TypeVar("T")
R = TypeVar("R")
_GROUP = Path("/sys/fs/cgroup")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_WORDS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's, Python's, or the CPU allocator's RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def release() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc keeps freed memory, which would count as whose ever work comes next
        trim(0)


@contextmanager
def settled() -> Iterator[None]:
    """Within the `with`, `release` does not look through what is there now: half a second each, with all libraries."""
    if gc.get_freeze_count():  # somebody did this already, and for longer
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def available(device: torch.device) -> int:
    """Bytes that can still be taken on a device; on a CPU within the limits of the container, where there are any."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        uses = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no control groups here, or none that limits memory
        return free
    # Files that were read stay in memory until somebody needs the room.
    return min(free, limit - used + int(uses.get("inactive_file", 0)))


def kept_bytes(forward: Callable[[], Any]) -> int:
    """Bytes that a forward keeps for its backward, parameters left out, counted by autograd as it saves them."""
    seen: dict[int, torch.UntypedStorage] = {}

    def save(tensor: torch.Tensor) -> None:
        # Not the tensor: one that a graph keeps of its own output would keep the graph, and neither ever went.
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage

    with torch.autograd.graph.saved_tensors_hooks(save, lambda nothing: nothing):
        forward()
    return sum(storage.nbytes() for storage in seen.values())


class Peak:
    """The most memory in use while the `with` lasts: `bytes`, and `kind`, which says what was measured."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self.kind = ""

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.kind = "allocated on the GPU"
        else:
            self.kind = "resident" if _reset() else "resident, since the process began"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bytes = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _highest()


class Portions:
    """Goes through rows a portion at a time, and halves the portion for good whenever memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def each(self, rows: Sequence[T], work: Callable[[Sequence[T]], R]) -> Iterator[R]:
        """The results of `work` on successive portions. Raises Refused when not even one row fits."""
        start = 0
        while start < len(rows):
            part = rows[start : start + self.size]
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                self.size = min(self.size, len(part))
                halved = self.halve(error)
            else:
                start += len(part)
                yield result
                continue
            self.size = halved
            release()

    def halve(self, error: BaseException) -> int:
        """Half the size. Raises Refused at one row."""
        if self.size <= 1:
            said = str(error).partition("\n")[0][:120] or type(error).__name__
            raise Refused(
                f"memory ran out on a single row ({said}). "
                "Lower --length, turn on --checkpointing, or choose a smaller model."
            ) from error
        return self.size // 2


def _reset() -> bool:
    try:
        _RESET.write_text("5")
    except OSError:  # not Linux, or not allowed: then the peak counts from the start of the process
        return False
    return True


def _highest() -> int:
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # Unix only, like the question

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024
