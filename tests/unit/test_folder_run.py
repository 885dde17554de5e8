"""A run in a folder: checkpoints are there whole or not at all, and the newest is gone on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchkeeper.models.interface import Cancellation
from watchkeeper.tools.errors import DivergedError, JobCancelledError
from watchkeeper.tools.training.folder_run import FolderRun


def run(folder: Path, **given: object) -> FolderRun:
    return FolderRun(folder, folder / "data", seed=0, threads=1, **given)  # type: ignore[arg-type]


def write(text: str) -> object:
    return lambda folder: (folder / "state").write_text(text)


def test_the_newest_checkpoint_is_gone_on_from_and_older_ones_go(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first.checkpoint is None
    first.save(5, write("five"))  # type: ignore[arg-type]
    first.save(10, write("ten"))  # type: ignore[arg-type]
    again = run(tmp_path)
    assert again.checkpoint is not None
    assert (again.checkpoint / "state").read_text() == "ten"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [again.checkpoint.name]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    first = run(tmp_path)
    first.save(5, write("five"))  # type: ignore[arg-type]

    def fail(folder: Path) -> None:
        (folder / "state").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        first.save(10, fail)
    again = run(tmp_path)
    assert again.checkpoint is not None
    assert (again.checkpoint / "state").read_text() == "five"


def test_what_is_no_number_is_refused_with_its_step(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="loss is nan in step 3"):
        run(tmp_path).metric(3, loss=float("nan"))


def test_a_run_ends_when_it_is_cancelled_or_its_time_is_over(tmp_path: Path) -> None:
    cancel = Cancellation()
    going = run(tmp_path, cancel=cancel)
    going.check()
    cancel.cancel()
    with pytest.raises(JobCancelledError, match="stopped"):
        going.check()
    with pytest.raises(JobCancelledError, match="time is over"):
        run(tmp_path, seconds=-1.0).check()


def test_artefacts_of_a_run_that_was_cut_off_are_gone(tmp_path: Path) -> None:
    (run(tmp_path).artefacts / "half").write_text("x")
    assert list(run(tmp_path).artefacts.iterdir()) == []
