"""The folder of a job is whole at every moment, and a new attempt goes back to its last checkpoint."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from watchkeeper.tools.errors import DataError, DivergedError, JobFolderError
from watchkeeper.tools.training.folder import Ending, JobFolder, JobProgress
from watchkeeper.tools.training.recording import RecordedRun
from watchkeeper.tools.training.spec import JobSpec


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    spec = JobSpec(name="a", trainer="t", data=tmp_path / "data", seed=3)
    return JobFolder.create(tmp_path / "job", spec)


def run_of(folder: JobFolder, *, attempt: int = 1, writes: bool = True) -> RecordedRun:
    return RecordedRun(folder, folder.spec, before=folder.progress, attempt=attempt, writes=writes)


def keep(text: str, folder: Path) -> None:
    (folder / "weights").write_text(text)


def test_a_new_folder_says_what_is_to_be_done_and_nothing_else(folder: JobFolder) -> None:
    assert folder.spec.seed == 3
    assert folder.progress == JobProgress()
    assert folder.metrics() == []
    assert folder.checkpoint() is None
    assert folder.ending(1) is None


def test_metrics_are_readable_while_a_line_is_being_written(folder: JobFolder) -> None:
    run = run_of(folder)
    run.metric(1, loss=0.5)
    run.metric(2, loss=0.25, accuracy=1)
    with folder.metrics_file.open("a") as stream:
        stream.write('{"step": 3, "lo')
    assert folder.metrics() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "accuracy": 1.0}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_kept(folder: JobFolder, value: float) -> None:
    run = run_of(folder)
    with pytest.raises(DivergedError, match=r"loss is .* in step 4"):
        run.metric(4, accuracy=0.5, loss=value)
    assert folder.metrics() == []


def test_a_new_attempt_forgets_what_came_after_the_checkpoint(folder: JobFolder) -> None:
    run = run_of(folder)
    run.metric(1, loss=3.0)
    run.save(1, lambda path: keep("one", path))
    run.metric(2, loss=2.0)
    (run.artefacts / "half").write_text("x")
    again = run_of(folder, attempt=2)
    assert folder.metrics() == [{"step": 1, "loss": 3.0}]
    assert again.checkpoint is not None
    assert (again.checkpoint / "weights").read_text() == "one"
    assert list(again.artefacts.iterdir()) == []


def test_a_run_that_was_cut_off_does_not_go_on_with_other_data(folder: JobFolder) -> None:
    run = run_of(folder)
    run.learn_from("a")
    run.save(1, lambda path: keep("one", path))
    again = run_of(folder, attempt=2)
    again.learn_from("a")
    with pytest.raises(DataError, match=r"changed since the checkpoint of step 1: put it back as it was"):
        again.learn_from("b")


def test_metrics_that_a_power_cut_shortened_are_not_filled_up(folder: JobFolder) -> None:
    run = run_of(folder)
    for step in (1, 2):
        run.metric(step, loss=3.0)
    run.save(2, lambda path: keep("two", path))
    whole = folder.metrics_file.read_bytes()
    folder.metrics_file.write_bytes(whole[: len(whole) // 2])
    run_of(folder, attempt=2)
    assert folder.metrics() == [{"step": 1, "loss": 3.0}]


def test_a_checkpoint_that_fails_half_way_leaves_the_one_before(folder: JobFolder) -> None:
    run = run_of(folder)
    run.save(1, lambda path: keep("one", path))

    def fail(path: Path) -> None:
        keep("two", path)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run.save(2, fail)
    found = folder.checkpoint()
    assert found is not None
    assert (found[0].step, (found[1] / "weights").read_text()) == (1, "one")
    assert [path.name for path in folder.checkpoints.iterdir()] == ["000000000001"]


def test_only_the_newest_checkpoints_are_kept(folder: JobFolder) -> None:
    run = run_of(folder)
    for step in (8, 9, 10, 11):
        run.save(step, lambda path: keep("x", path))
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["000000000010", "000000000011"]


def test_artefacts_are_there_only_when_all_are(folder: JobFolder) -> None:
    run = run_of(folder)
    (run.artefacts / "weights").write_text("x")
    assert not folder.artefacts.exists()
    folder.finish()
    assert [path.name for path in folder.artefacts.iterdir()] == ["weights"]


def test_processes_that_train_along_keep_nothing(folder: JobFolder) -> None:
    first = run_of(folder)
    first.save(1, lambda path: keep("one", path))
    other = run_of(folder, writes=False)
    other.metric(2, loss=1.0)
    other.save(2, lambda path: keep("two", path))
    with pytest.raises(DivergedError):
        other.metric(3, loss=float("nan"))
    assert folder.metrics() == []
    assert other.checkpoint is not None
    assert (other.checkpoint / "weights").read_text() == "one"


def test_an_ending_is_of_its_attempt_and_as_long_as_its_room(folder: JobFolder) -> None:
    folder.reserve_ending()
    assert folder.ending(1) is None
    size = (folder.path / "ending.json").stat().st_size
    folder.write_ending(Ending(attempt=1, how="crashed", reason="\u2026" * 5000))
    assert (folder.path / "ending.json").stat().st_size == size
    said = folder.ending(1)
    assert said is not None
    assert said.reason == "\u2026" * 1000
    assert folder.ending(2) is None


def test_one_at_a_time_holds_a_folder(folder: JobFolder) -> None:
    with folder.held() as first, folder.held() as second:
        assert (first, second) == (True, False)
    with folder.held() as again:
        assert again


def test_time_and_work_add_up_over_attempts(folder: JobFolder) -> None:
    folder.write_progress(JobProgress(attempt=1, seconds=100, cpu_seconds=50, peak_memory=2**40))
    run_of(folder, attempt=2)
    progress = folder.progress
    assert progress.attempt == 2
    assert progress.seconds >= 100
    assert progress.cpu_seconds > 50
    assert progress.peak_memory == 2**40


def test_what_cannot_be_read_is_named(folder: JobFolder, tmp_path: Path) -> None:
    with pytest.raises(JobFolderError, match=r"spec\.json is missing"):
        _ = JobFolder(tmp_path).spec
    (folder.path / "spec.json").write_text(json.dumps({"name": "a"}))
    with pytest.raises(JobFolderError, match=r"spec\.json"):
        _ = folder.spec
