"""Whatever line a training process is killed at, its folder has a whole checkpoint and its metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killing import killed_at
from tests.lamp import folder_in_memory
from watchkeeper.tools.training import folder as folder_module
from watchkeeper.tools.training.folder import JobFolder
from watchkeeper.tools.training.recording import RecordedRun
from watchkeeper.tools.training.spec import JobSpec

FILES = frozenset({str(folder_module.__file__)})
STEPS = 3
LEAST_DEATHS = 50


def count(folder: JobFolder) -> None:
    """Train: each step counts one further, and the artefact is the count."""
    run = RecordedRun(folder, folder.spec, before=folder.progress, attempt=1)
    reached = 0 if run.checkpoint is None else int((run.checkpoint / "count").read_text())
    for step in range(reached + 1, STEPS + 1):
        run.metric(step, loss=1 / step)
        run.save(step, lambda place, step=step: write(place, step))  # type: ignore[misc]
    (run.artefacts / "count").write_text(str(STEPS))
    folder.finish()


def write(place: Path, step: int) -> None:
    (place / "count").write_text(str(step))


@pytest.mark.parametrize(
    "stride",
    [pytest.param(4, id="every fourth line"), pytest.param(1, id="every line", marks=pytest.mark.crash)],
)
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_end(stride: int) -> None:
    line = 0
    deaths = 0
    with folder_in_memory() as base:
        while True:
            line += stride
            folder = JobFolder.create(
                base / str(line), JobSpec(name="a", trainer="t", data=Path("/d"), launcher="python")
            )
            if not killed_at(line, FILES, lambda folder=folder: count(folder)):  # type: ignore[misc]
                break
            deaths += 1
            found = folder.checkpoint()
            if found is not None:
                assert (found[1] / "count").read_text() == str(found[0].step)
                kept = folder.metrics_file.read_bytes()[: found[0].metrics_size]
                assert kept.count(b"\n") == found[0].step
            if folder.artefacts.exists():
                assert (folder.artefacts / "count").read_text() == str(STEPS)
            count(folder)
            assert folder.metrics() == [{"step": step, "loss": 1 / step} for step in range(1, STEPS + 1)]
            assert [path.name for path in folder.artefacts.iterdir()] == ["count"]
            assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
                "000000000002",
                "000000000003",
            ]
    assert deaths >= LEAST_DEATHS // stride
