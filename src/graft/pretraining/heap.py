"""Telling glibc to keep freed memory: giving pages back and asking again is a third of a training step on a CPU."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep() -> bool:
    """Serve big blocks from the heap and never trim it. True where this C library can do that (glibc on Linux)."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:  # another C library, which has no such setting
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
