"""Homes with versions of predictors, made once: MLflow's tables take seconds."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from tests.clocks import START, FakeClock
from tests.threshold import EVALUATION, make
from watchkeeper.tools.versions import JobRecord, Notes, Versions

JOB = JobRecord(
    id="JOB-1",
    requested_by="alice",
    started_at=START,
    seconds=12.5,
    hardware={"cpu": "of a test", "cores": "2"},
    energy_joules=812.5,
    energy_source="estimated from 65 W",
)


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="watchkeeper-homes-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache(maxsize=1)
def empty_home() -> Path:
    """A home without versions; to be copied."""
    home = _folder() / "empty"
    Versions(home)
    return home


@lru_cache(maxsize=1)
def home_with_two() -> Path:
    """A home with two versions of the predictor ``busy``; to be copied."""
    home = Path(shutil.copytree(empty_home(), _folder() / "two"))
    kept = Versions(home, now=FakeClock())
    better = EVALUATION.model_copy(update={"metrics": {"accuracy": 0.8, "recall": 0.5}})
    kept.register("busy", make(_folder() / "a", 0.5), EVALUATION, JOB, Notes(label_column="busy"))
    kept.register("busy", make(_folder() / "b", 0.6), better, None, Notes(label_column="busy"))
    return home
