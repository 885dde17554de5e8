"""The commands about training jobs show what is there, and tell a mistake in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner, Result

from tests.lamp import folder_in_memory
from tests.trainers import write_points
from watchkeeper.cli import build_app
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.people import current_person
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.training.folder import JobProgress
from watchkeeper.tools.training.record import TrainingStatus

RUNNER = CliRunner()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with folder_in_memory() as folder:
        monkeypatch.setenv("WATCHKEEPER_HOME", str(folder / "home"))
        monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
        write_points(folder / "points.csv")
        yield folder / "home"


@pytest.fixture
def jobs(home: Path) -> Iterator[TrainingJobs]:
    with Store(home / "watchkeeper.db") as store:
        yield TrainingJobs(store, home, AuditLog(home))


def invoke(*words: str) -> Result:
    return RUNNER.invoke(build_app(), ["jobs", *words])


def submit(home: Path, *words: str) -> Result:
    data = str(home.parent / "points.csv")
    return invoke("submit", "--trainer", "tests.trainers:Line", "--data", data, *words)


def test_a_job_is_submitted_from_options(home: Path, jobs: TrainingJobs) -> None:
    said = submit(home, "--name", "nightly", "--memory", "1GB", "--set", "epochs=3", "--seed", "9")
    assert said.exit_code == 0, said.stderr
    job = jobs.get(said.stdout.strip())
    assert (job.name, job.submitted_by, job.spec.seed) == ("nightly", current_person(), 9)
    assert (job.spec.limits.memory, job.spec.parameters) == (10**9, {"epochs": 3})


def test_options_beat_the_file(home: Path, jobs: TrainingJobs) -> None:
    path = home.parent / "job.yaml"
    path.write_text(
        "name: a\ntrainer: tests.trainers:Line\ndata: points.csv\nparameters: {epochs: 5, pause: 1}\n"
    )
    said = invoke("submit", str(path), "--set", "epochs=7", "--json")
    job = jobs.get(json.loads(said.stdout)["id"])
    assert job.spec.parameters == {"epochs": 7, "pause": 1}
    assert job.spec.data == home.parent / "points.csv"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("submit",), "trainer: Field required"),
        (("submit", "--trainer", "nobody", "--data", "."), "there is no trainer 'nobody'"),
        (("submit", "--trainer", "a:B", "--data", "/not/there"), "'/not/there' is not there"),
        (("submit", "--trainer", "a:B", "--data", ".", "--memory", "lots"), "limits.memory"),
        (("submit", "--trainer", "a:B", "--data", ".", "--set", "epochs"), "name=value is expected"),
        (("submit", "--trainer", "a:B", "--data", ".", "--launcher", "cron"), "launcher"),
        (
            ("submit", "--trainer", "a:B", "--data", ".", "--gpus", "64"),
            "it asks for 64 GPUs, and this machine",
        ),
        (("submit", "/not/there.yaml"), "'/not/there.yaml' cannot be read"),
        (("show", "JOB-NONE"), "there is no training job 'JOB-NONE'"),
        (("logs", "JOB-NONE"), "there is no training job 'JOB-NONE'"),
        (("cancel", "JOB-NONE"), "there is no training job 'JOB-NONE'"),
        (("resume", "JOB-NONE"), "there is no training job 'JOB-NONE'"),
        (("list", "--status", "lost"), "there are: queued, running, done, failed, cancelled"),
    ],
)
def test_a_mistake_is_told_in_one_line(home: Path, words: tuple[str, ...], said: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_a_job_did_and_cost_is_shown_and_drawn(home: Path, jobs: TrainingJobs) -> None:
    job = jobs.get(submit(home).stdout.strip())
    folder = jobs.folder(job.id)
    folder.write_progress(JobProgress(attempt=1, done=0.5, step=2, seconds=30, cpu_seconds=3600))
    folder.write_environment({"processors": 2})
    folder.metrics_file.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25, "accuracy": 1}\n')
    folder.log.write_text("one\n\x1b[31mtwo\nhalf")
    curve = home.parent / "curve.png"
    shown = json.loads(invoke("show", job.id.lower(), "--plot", str(curve), "--json").stdout)
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert shown["metrics"][1] == {"step": 2, "loss": 0.25, "accuracy": 1}
    # An hour of one of two processors, at 65 W for both.
    assert shown["cost"] == {"seconds": 30, "cpu_seconds": 3600, "watt_hours": 32.5}
    text = invoke("show", job.id).stdout
    assert "0.25" in text
    assert "about 32 Wh" in text
    assert invoke("logs", job.id).stdout == "one\n\N{REPLACEMENT CHARACTER}[31mtwo\n"
    assert json.loads(invoke("logs", job.id, "--lines", "1", "--json").stdout)["lines"] == ["\x1b[31mtwo"]
    jobs.end(job.id, TrainingStatus.FAILED)
    # What a job that is over left without an end of line is its last word.
    assert invoke("logs", job.id, "--lines", "1", "--follow").stdout.endswith("two\nhalf\n")


def test_a_job_is_listed_cancelled_and_resumed(home: Path, jobs: TrainingJobs) -> None:
    assert "no training jobs" in invoke("list").stdout
    job_id = submit(home).stdout.strip()
    assert invoke("cancel", job_id, "--reason", "too early").stdout == f"{job_id} is cancelled\n"
    (listed,) = json.loads(invoke("list", "--status", "cancelled", "--json").stdout)
    assert listed["reason"] == f"cancelled by {current_person()}: too early"
    assert "cancelled" in invoke("list").stdout
    assert invoke("resume", job_id).stdout == f"{job_id} is queued\n"
    jobs.end(job_id, TrainingStatus.DONE)
    assert "is done: submit another one" in invoke("resume", job_id).stderr
    assert invoke("logs", job_id, "--follow").stdout == ""
    assert invoke("remove", job_id).exit_code == 2
    other = submit(home).stdout.strip()
    with patch("time.sleep", side_effect=KeyboardInterrupt):
        assert invoke("logs", other, "--follow").exit_code == 130
    invoke("cancel", other)
    assert invoke("remove", other).stdout == f"{other} is removed\n"
    assert [job.id for job in jobs.list()] == [job_id]


def test_who_waits_for_a_job_is_told_how_it_ended_and_by_the_exit_code(
    home: Path, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(home).stdout.strip()
    jobs.cancel(job_id, by="ann")
    original = TrainingJobs.resume

    def resume(self: TrainingJobs, *words: str, **options: object) -> object:
        original(self, *words, **options)  # type: ignore[arg-type]
        return self.end(job_id, TrainingStatus.FAILED, how="data", reason="row 3")

    monkeypatch.setattr(TrainingJobs, "resume", resume)
    result = invoke("resume", job_id, "--wait")
    assert result.exit_code == 1
    assert result.stdout == f"{job_id} is failed (data): row 3\n"
