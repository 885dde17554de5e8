"""The peak of a program's memory is its own, whoever started it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from watchkeeper.models.memory import peak_memory
before = peak_memory()
held = bytearray(b"x") * 200_000_000
del held
print(before, peak_memory())
"""


def test_a_peak_is_the_programs_own_and_outlasts_what_was_freed() -> None:
    parents = bytearray(b"x") * 400_000_000  # resident while the child is started

    child = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    before, after = map(int, child.stdout.split())
    assert before < 200_000_000
    assert 200_000_000 <= after < 350_000_000
    assert len(parents) == 400_000_000
