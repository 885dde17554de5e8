"""`submit`, `serve` and `stop`, as people and programs use them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeeper.cli.output import HALTED
from watchkeeper.runtime.incident_jobs import run_key
from watchkeeper.runtime.jobs import Jobs, JobStatus
from watchkeeper.runtime.store import Store

INVENTORY = "hosts: [{name: web-1, labels: {environment: test}}]\n"
ALERT = "title: web-1 is down\nhost: web-1\ncondition: {kind: http, url: 'http://127.0.0.1:9/'}\n"
NOWHERE = "http://127.0.0.1:9/v1#none"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    (tmp_path / "inventory.yaml").write_text(INVENTORY)
    (tmp_path / "alert.yaml").write_text(ALERT)
    return tmp_path


def watchkeeper(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watchkeeper.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_an_alert_is_submitted_for_workers_and_everything_can_be_stopped(home: Path) -> None:
    alert = str(home / "alert.yaml")
    said = watchkeeper("submit", alert)
    assert said.returncode == 0, said.stderr
    incident = said.stdout.strip()
    with Store(home / "watchkeeper.db") as store:
        job = Jobs(store).find(run_key(incident))
        assert job is not None
        assert (job.status, job.body) == (JobStatus.QUEUED, {"incident": incident})
    stopped = watchkeeper("stop", "--reason", "smoke", "--json")
    assert json.loads(stopped.stdout)["reason"] == "smoke"
    for refused in (
        watchkeeper("submit", alert),
        watchkeeper("serve", "--once", "--model", NOWHERE),
        watchkeeper("run", "--resume", incident, "--model", NOWHERE),
    ):
        assert refused.returncode == HALTED, refused.stderr
        assert "smoke" in refused.stderr
        assert "watchkeeper stop --lift" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert "work may go on" in watchkeeper("stop", "--lift").stdout
    assert watchkeeper("stop", "--lift").stdout == "nothing was stopped\n"
    again = json.loads(watchkeeper("submit", alert, "--json").stdout)
    assert (again["id"], again["alert_count"]) == (incident, 2)
    third = watchkeeper("submit", alert)
    assert third.stdout == f"{incident}\n"
    assert third.stderr == f"joins {incident}, which is open for the same (alert 3 of it)\n"


def test_the_package_is_the_command_line() -> None:
    command = [sys.executable, "-m", "watchkeeper", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == watchkeeper("--version").stdout != ""


def test_a_worker_without_work_ends_where_it_is_to_work_once(home: Path) -> None:
    ended = watchkeeper("serve", "--once", "--model", NOWHERE)
    # What is missing of the sandbox is told where this machine has none.
    told = [line for line in ended.stderr.splitlines() if "WITHOUT a full sandbox" not in line]
    assert (ended.returncode, told) == (0, [])


def test_an_incident_waits_for_a_model_that_does_not_answer_and_is_handed_over_in_the_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_OUTAGE_SECONDS", "0")
    incident = watchkeeper("submit", str(home / "alert.yaml")).stdout.strip()
    ended = watchkeeper("serve", "--once", "--model", NOWHERE)
    assert ended.returncode == 0
    assert "was handed to people: nothing could be done for 0 s: RemoteError" in ended.stderr
    assert "escalated" in watchkeeper("incidents", "show", incident).stdout


def test_what_a_model_that_does_not_answer_leaves_is_tried_again(home: Path) -> None:
    incident = watchkeeper("submit", str(home / "alert.yaml")).stdout.strip()
    ended = watchkeeper("serve", "--once", "--model", NOWHERE)
    assert ended.returncode == 0
    assert f"incident {incident!r} waits" in ended.stderr
    with Store(home / "watchkeeper.db") as store:
        job = Jobs(store).find(run_key(incident))
        assert job is not None
        assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_an_alert_about_what_is_not_there_is_a_mistake(home: Path) -> None:
    (home / "alert.yaml").write_text(ALERT.replace("host: web-1", "host: web-9"))
    said = watchkeeper("submit", str(home / "alert.yaml"))
    assert said.returncode == 2
    assert "web-9" in said.stderr
