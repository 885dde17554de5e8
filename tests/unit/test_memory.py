"""What a program has of the machine's memory: the peak is its own, and what it freed can be had again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
from watchkeeper.models.memory import peak_memory
before = peak_memory()
held = bytearray(b"x") * 200_000_000
del held
print(before, peak_memory())
"""

GIVING_BACK = """
import psutil
from watchkeeper.models.memory import give_memory_back
held = [bytearray(b"x") * 100_000 for _ in range(4000)]
del held[::2], held[:-1]  # the last one keeps the end of the heap in use
kept = psutil.Process().memory_info().rss
give_memory_back()
print(kept, psutil.Process().memory_info().rss)
"""


def test_a_peak_is_the_programs_own_and_outlasts_what_was_freed() -> None:
    parents = bytearray(b"x") * 400_000_000  # resident while the child is started

    child = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    before, after = map(int, child.stdout.split())
    assert before < 200_000_000
    assert 200_000_000 <= after < 350_000_000
    assert len(parents) == 400_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library keeps no freed memory")
def test_freed_memory_is_given_back() -> None:
    child = subprocess.run([sys.executable, "-c", GIVING_BACK], capture_output=True, text=True, check=True)

    kept, left = map(int, child.stdout.split())
    assert kept - left > 200_000_000
