"""A run of a trainer in a folder of its own: it can be stopped at any moment and gone on with."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from watchkeeper.models.interface import Cancellation
from watchkeeper.models.manifest import sync_folder, sync_tree
from watchkeeper.tools.errors import DivergedError, JobCancelledError

_CHECKPOINTS = "checkpoints"
_METRICS = "metrics.jsonl"
_STEP = "step-"


class FolderRun:
    """See `watchkeeper.tools.training.interface.TrainingRun`.

    Args:
        folder: Where checkpoints, metrics and artefacts lie.
        data: A file or folder to learn from.
        seed: Seed of everything that is drawn by chance.
        threads: Threads to use.
        tell: Told how far it is, from 0 to 1, and what is going on.
        cancel: Raised to end it.
        seconds: Time after which it ends, to be gone on with; none where ``None``.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        *,
        seed: int,
        threads: int,
        tell: Callable[[float, str], None] | None = None,
        cancel: Cancellation | None = None,
        seconds: float | None = None,
    ) -> None:
        self.data = data
        self.artefacts = folder / "artefacts"
        self.seed = seed
        self.threads = threads
        self._folder = folder
        self._tell = tell
        self._cancel = cancel
        self._ends = None if seconds is None else time.monotonic() + seconds
        shutil.rmtree(self.artefacts, ignore_errors=True)
        self.artefacts.mkdir(parents=True)
        kept = self._kept()
        self.checkpoint: Path | None = kept[-1] if kept else None

    def metric(self, step: int, **values: float) -> None:
        """Keep metrics of a step, a JSON object a line.

        Raises:
            DivergedError: If one is no finite number.
        """
        strange = {name: value for name, value in values.items() if not math.isfinite(value)}
        if strange:
            name = min(strange)
            raise DivergedError(f"{name} is {strange[name]} in step {step}: lower the learning rate")
        with (self._folder / _METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def progress(self, done: float, what: str = "") -> None:
        """Say how far it is, from 0 to 1."""
        if self._tell is not None:
            self._tell(done, what)

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """Keep a checkpoint, all of it or nothing, and remove the older ones."""
        root = self._folder / _CHECKPOINTS
        root.mkdir(exist_ok=True)
        before = self._kept()
        target = root / f"{_STEP}{step:08}"
        with tempfile.TemporaryDirectory(prefix=".", dir=root, ignore_cleanup_errors=True) as room:
            filled = Path(room) / target.name
            filled.mkdir()
            write(filled)
            sync_tree(filled)
            if not target.exists():
                filled.rename(target)
        sync_folder(root)
        self.checkpoint = target
        for old in before:
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def check(self) -> None:
        """Give up where the run is to end.

        Raises:
            JobCancelledError: If it was cancelled, or its time is over.
        """
        if self._cancel is not None and self._cancel.cancelled:
            raise JobCancelledError("stopped; the last checkpoint is kept")
        if self._ends is not None and time.monotonic() > self._ends:
            raise JobCancelledError("the time is over; the last checkpoint is kept")

    def _kept(self) -> list[Path]:
        return sorted((self._folder / _CHECKPOINTS).glob(f"{_STEP}*"))
