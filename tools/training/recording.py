"""A run of a trainer whose metrics, checkpoints and progress are kept in its job's folder."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from watchkeeper.tools.errors import DataError, DivergedError, JobCancelledError
from watchkeeper.tools.training.folder import JobFolder, JobProgress
from watchkeeper.tools.training.spec import JobSpec

_BEAT_SECONDS = 0.5
"""Time between two notes of how far a job is."""


class RecordedRun:
    """The run that a trainer is given; see `watchkeeper.tools.training.interface.TrainingRun`.

    Args:
        folder: The job's folder.
        spec: What is to be done.
        before: How far the attempts before came.
        attempt: Number of this attempt.
        writes: Whether this process keeps anything: one of those that train together does.
        joules: Reads the energy that GPUs drew for this attempt.
    """

    def __init__(
        self,
        folder: JobFolder,
        spec: JobSpec,
        *,
        before: JobProgress,
        attempt: int,
        writes: bool = True,
        joules: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._folder = folder
        self._before = before
        self._attempt = attempt
        self._writes = writes
        self._joules = joules
        self._started = time.monotonic()
        self._beaten = 0.0
        self._done = 0.0
        self._what = ""
        self._step: int | None = None
        self._cancelled = threading.Event()
        self._data_sha256 = ""
        self.data = spec.data
        self.seed = spec.seed
        self.threads = spec.limits.threads
        self.artefacts = folder.unfinished
        self.checkpoint: Path | None
        if writes:
            self.checkpoint = folder.begin()
        else:
            found = folder.checkpoint()
            self.checkpoint = None if found is None else found[1]
        found = folder.checkpoint()
        if found is not None:
            self._step = found[0].step
            self._done = before.done
        self.beat()

    def cancel_on(self, number: signal.Signals) -> None:
        """Have a signal end the run at its next check."""
        signal.signal(number, lambda *_: self._cancelled.set())

    def learn_from(self, sha256: str) -> None:
        """Say what is learned from: a run that was cut off goes on with the same data, or not at all.

        Raises:
            DataError: If the run's checkpoint is of other data.
        """
        found = self._folder.checkpoint()
        if found is not None and found[0].data_sha256 not in {"", sha256}:
            raise DataError(
                f"{self.data} changed since the checkpoint of step {found[0].step}: put it back as it was "
                "and resume the job, or submit it anew (a copy does not change meanwhile)"
            )
        self._data_sha256 = sha256

    def metric(self, step: int, **values: float) -> None:
        """Keep metrics of a step.

        Raises:
            DivergedError: If one is no finite number.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} is {value} in step {step}: look for such values in the data, or lower the "
                    "learning rate"
                )
        self._step = step
        if self._writes:
            line = json.dumps({"step": step, **{name: float(value) for name, value in values.items()}})
            with self._folder.metrics_file.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        self._maybe_beat()

    def progress(self, done: float, what: str = "") -> None:
        """Say how far it is, from 0 to 1."""
        self._done = min(1.0, max(0.0, done))
        self._what = what or self._what
        self._maybe_beat()

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """Keep a checkpoint, all of it or nothing: ``write`` fills the folder that it is given."""
        if self._writes:
            self._folder.save(step, write, data_sha256=self._data_sha256)
            self.beat()
        self.check()

    def check(self) -> None:
        """Give up where the run is to end.

        Raises:
            JobCancelledError: If it was cancelled.
        """
        if self._cancelled.is_set():
            raise JobCancelledError("the job was told to end")
        self._maybe_beat()

    def beat(self, *, done: bool = False) -> None:
        """Note how far it is."""
        self._beaten = time.monotonic()
        if not self._writes:
            return
        own = resource.getrusage(resource.RUSAGE_SELF)
        below = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime
        before = self._before
        self._folder.write_progress(
            JobProgress(
                attempt=self._attempt,
                pid=os.getpid(),
                done=1.0 if done else self._done,
                what="done" if done else self._what,
                step=self._step,
                seconds=before.seconds + self._beaten - self._started,
                cpu_seconds=before.cpu_seconds + cpu,
                gpu_joules=before.gpu_joules + self._joules(),
                memory=psutil.Process().memory_info().rss,
                peak_memory=max(before.peak_memory, own.ru_maxrss * 1024),
            )
        )

    def _maybe_beat(self) -> None:
        if time.monotonic() - self._beaten >= _BEAT_SECONDS:
            self.beat()
