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


def run(folder: Path, script: str, **settings: str) -> str:
    """What a process of its own prints."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **settings}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("writable", [True, False])
def test_a_loop_is_kept_where_that_is_possible(tmp_path: Path, writable: bool) -> None:
    """Root may write to any folder, so a file stands where the folders would be."""
    module = tmp_path / "loops.py"
    module.write_text(LOOPS)
    if not writable:
        (tmp_path / "__pycache__").write_text("in the way")
    nowhere = str(tmp_path / "loops.py")

    assert run(tmp_path, SCRIPT, HOME=nowhere, XDG_CACHE_HOME=nowhere) == "6.0\n"
    assert bool(list(tmp_path.glob("__pycache__/*.nbi"))) is writable


def test_what_was_kept_counts_until_any_module_of_loops_changes(tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(LOOPS)
    hits = SCRIPT + "; print(sum(double.stats.cache_hits.values()))"
    changed = "from watchkeeper.models import compiled; compiled._sources = lambda: 'others'; " + hits

    found = [run(tmp_path, script).split()[1] for script in (hits, hits, changed, changed)]

    assert found == ["0", "1", "0", "1"]


@pytest.mark.parametrize("damage", ["truncated", "full disk"])
def test_what_cannot_be_kept_or_read_is_compiled(tmp_path: Path, damage: str) -> None:
    (tmp_path / "loops.py").write_text(LOOPS)
    script = SCRIPT
    if damage == "truncated":
        run(tmp_path, SCRIPT)
        kept = list((tmp_path / "__pycache__").glob("*.nbc"))
        assert kept
        for path in kept:
            path.write_bytes(b"")
    else:
        script = (
            "import numba.core.caching as caching\n"
            "def full(*_): raise OSError(28, 'No space left on device')\n"
            "caching.IndexDataCacheFile._save_data = full\n" + SCRIPT
        )

    assert run(tmp_path, script).startswith("6.0")


def test_threads_stay_as_many_as_torch_has(tmp_path: Path) -> None:
    script = (
        "import threading, torch; torch.set_num_threads(1)\n"
        "import numpy as np; from watchkeeper.models.rowwise import gate\n"
        "counts = []\n"
        "def work(): gate(np.ones((40, 8), np.float32)); counts.append(torch.get_num_threads())\n"
        "for _ in range(2):\n    thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "work(); print(counts)"
    )
    assert run(tmp_path, script) == "[1, 1, 1]\n"
