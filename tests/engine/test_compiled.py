"""Compiled loops work where nothing can be kept on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = "from loops import double; import numpy as np; print(double(np.arange(3.0)).sum())"
LOOPS = """
from watchkeeper.models.compiled import compiled
@compiled()
def double(values):
    return 2 * values
"""


@pytest.mark.parametrize("writable", [True, False])
def test_a_loop_is_kept_where_that_is_possible(tmp_path: Path, writable: bool) -> None:
    """Root may write to any folder, so a file stands where the folders would be."""
    module = tmp_path / "loops.py"
    module.write_text(LOOPS)
    if not writable:
        (tmp_path / "__pycache__").write_text("in the way")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"},
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path / "loops.py"),
        "XDG_CACHE_HOME": str(tmp_path / "loops.py"),
    }

    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)

    assert done.stdout == "6.0\n", done.stderr
    assert bool(list(tmp_path.glob("__pycache__/*.nbi"))) is writable
