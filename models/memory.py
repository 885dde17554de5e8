"""What this process has of the machine's memory."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path


def peak_memory() -> int:
    """Return the most bytes of physical memory that this program has held at once since it started.

    ``getrusage`` would also count what the parent held when it started this process: Linux carries that peak
    over into a program that a forked process executes. So the kernel's own account of the program is read
    where there is one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_memory_back() -> None:
    """Return freed memory to the system, where the C library keeps it (glibc does, for each thread).

    Requests of many lengths leave holes of many sizes; without this a process keeps about what its busiest
    moment took. It takes some milliseconds, and what is given back is had again when it is needed.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
