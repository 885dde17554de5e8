"""A small file system, for what only a real one does: a disk that is full, a folder that cannot be moved."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *, size: str = "1m") -> Iterator[Path]:
    """Mount one on a folder, which is made; where that cannot be done, the test is skipped and says why."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"tmpfs cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        # It may have been moved along with the folder that it is in: whoever did that unmounts it there.
        if folder.is_mount():
            subprocess.run(["umount", "-l", str(folder)], check=True)
