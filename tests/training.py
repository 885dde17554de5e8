"""A run of a trainer in the process of a test, which may be cut off and gone on with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from watchkeeper.tools.errors import DivergedError, JobCancelledError


class Run:
    """Keeps what a trainer tells; it is cancelled once so many checkpoints were kept."""

    def __init__(
        self,
        data: Path,
        folder: Path,
        *,
        seed: int = 0,
        cut_after: int | None = None,
        before: Run | None = None,
    ) -> None:
        self.data = data
        self.artefacts = folder / "artefacts"
        self.artefacts.mkdir(parents=True)
        self.checkpoint = before.checkpoint if before is not None else None
        self.seed = seed
        self.threads = 1
        self.metrics: dict[int, dict[str, float]] = dict(before.metrics) if before is not None else {}
        self.told: list[float] = []
        self.checks = 0
        self._folder = folder
        self._left = cut_after

    def metric(self, step: int, **values: float) -> None:
        if not all(math.isfinite(value) for value in values.values()):
            raise DivergedError(f"step {step}: {values}")
        self.metrics.setdefault(step, {}).update(values)

    def progress(self, done: float, what: str = "") -> None:
        self.told.append(done)

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        path = self._folder / f"checkpoint-{step}"
        path.mkdir()
        write(path)
        self.checkpoint = path
        if self._left is not None:
            self._left -= 1
        self.check()

    def check(self) -> None:
        self.checks += 1
        if self._left == 0:
            raise JobCancelledError("cut off by the test")


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of every file of a folder but its manifest, which holds the time."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "predictor.json"
    }
