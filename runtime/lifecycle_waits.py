"""What a lifecycle waits for: the end of a training job, or labels of live answers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.errors import RecordingError
from watchkeeper.tools.predictors.recording import FILE, Predictions, Recorded, Tally
from watchkeeper.tools.training.record import TrainingStatus
from watchkeeper.tools.versions.versions import FOLDER

_LOOK_SECONDS = 0.5
_STEPS = 10


class _Asked(TypedDict):
    """What the version of a wait was asked since it began."""

    version: int
    roles: Sequence[str]
    since: datetime


class Waits:
    """Says whether what a lifecycle waits for is there.

    Args:
        jobs: Training jobs.
        home: Folder of Watchkeeper's state.
        now: The time.
    """

    def __init__(self, jobs: TrainingJobs, home: Path, now: Clock) -> None:
        self._jobs = jobs
        self._home = home
        self._now = now
        self._look_at = 0.0

    def over(self, wait: Mapping[str, Any]) -> bool:
        """Whether a lifecycle may go on; what costs is looked at twice a second at most."""
        if wait["wait"] == "job":
            job = self._jobs.find(str(wait["job"]))
            return job is None or not job.status.live
        if self._now() >= datetime.fromisoformat(wait["due"]):
            return True
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_SECONDS
        try:
            labels, rows = how_far(self._home, wait)
        except RecordingError:
            # Whoever goes on is told the same, and calls people.
            return True
        asked = wait.get("rows")
        return labels >= int(wait["count"]) or (asked is not None and rows >= asked)

    def told(self, wait: Mapping[str, Any]) -> str:
        """Say how far that is, in steps that are worth a line."""
        if wait["wait"] == "job":
            job = self._jobs.find(str(wait["job"]))
            if job is None:
                return ""
            if job.status is TrainingStatus.QUEUED:
                return f"{job.id} waits: {job.waits}"
            done = self._jobs.folder(job.id).progress.done
            return f"{job.id} trains: {int(done * _STEPS) * 100 // _STEPS} %"
        try:
            found, _ = how_far(self._home, wait)
        except RecordingError as error:
            return str(error)
        wanted = int(wait["wanted"])
        step = max(1, wanted // _STEPS)
        return (
            f"{found // step * step} of {wanted} labels of live answers, at most until {wait['due'][:19]} UTC"
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """What a version showed on live requests.

    Attributes:
        labelled: Its labelled answers, the oldest first.
        tally: How many rows it answered, and at how many it failed.
    """

    labelled: tuple[Recorded, ...]
    tally: Tally


def shown(home: Path, wait: Mapping[str, Any]) -> Shown:
    """Return what a wait for labels is about; nothing where nothing was recorded.

    Raises:
        RecordingError: If what was recorded cannot be read.
    """
    with _recorded(home) as kept:
        if kept is None:
            return Shown((), Tally(0, 0))
        name, asked = str(wait["predictor"]), _asked(wait)
        return Shown(kept.list(name, labelled=True, **asked), kept.tally(name, **asked))


def how_far(home: Path, wait: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many labels and rows there are of what `shown` would read.

    Raises:
        RecordingError: If what was recorded cannot be read.
    """
    with _recorded(home) as kept:
        if kept is None:
            return 0, 0
        name, asked = str(wait["predictor"]), _asked(wait)
        return kept.count(name, labelled=True, **asked), kept.tally(name, **asked).rows


@contextlib.contextmanager
def _recorded(home: Path) -> Iterator[Predictions | None]:
    path = home / FOLDER / FILE
    if not path.exists():
        yield None
        return
    with contextlib.closing(Predictions(path)) as kept:
        yield kept


def _asked(wait: Mapping[str, Any]) -> _Asked:
    return {
        "version": int(wait["version"]),
        "roles": wait["roles"],
        "since": datetime.fromisoformat(wait["since"]),
    }
