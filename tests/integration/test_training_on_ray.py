"""A job on a Ray cluster ends as it does here, with the same numbers; a cancelled one is stopped there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lamp import folder_in_memory
from tests.trainers import write_points
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.runtime.training_room import Room
from watchkeeper.runtime.training_runs import TrainingRuns
from watchkeeper.runtime.worker import Worker
from watchkeeper.tools.errors import ClusterError
from watchkeeper.tools.training import processes, ray_jobs
from watchkeeper.tools.training.folder import JobFolder
from watchkeeper.tools.training.process import supervise
from watchkeeper.tools.training.ray_jobs import stop_on_ray, supervise_on_ray
from watchkeeper.tools.training.record import TrainingStatus
from watchkeeper.tools.training.spec import JobLimits, JobSpec

ROOT = Path(__file__).parents[2]
ray = Path(sys.executable).with_name("ray")

pytestmark = [
    pytest.mark.skipif(not ray.exists(), reason="Ray is not installed: pip install 'watchkeeper[ray]'"),
    pytest.mark.filterwarnings("ignore"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of this machine alone, on loopback, of four processors by its word."""
    with folder_in_memory() as folder:
        dashboard = free_port()
        environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "PATH": f"{ray.parent}:{os.environ['PATH']}",
        }
        head = subprocess.Popen(
            [
                str(ray), "start", "--head", "--block", "--num-cpus=4", "--num-gpus=0", "--memory=2000000000",
                "--object-store-memory=80000000", "--node-ip-address=127.0.0.1", f"--port={free_port()}",
                "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
                f"--temp-dir={folder}", "--disable-usage-stats",
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield wait_for_dashboard(dashboard, head)
        finally:
            members = processes.in_session(head.pid)
            head.terminate()
            try:
                head.wait(20)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait()
            processes.kill({*members, *processes.in_session(head.pid)} - {head.pid})
            assert head.stdout is not None
            head.stdout.close()


def wait_for_dashboard(port: int, head: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert head.poll() is None, head.stdout.read().decode() if head.stdout else ""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}"
        time.sleep(0.5)
    raise AssertionError("the cluster did not come up")


@pytest.fixture
def base() -> Iterator[Path]:
    with folder_in_memory() as folder:
        write_points(folder / "points.csv")
        yield folder


def job(base: Path, name: str, *, trainer: str = "Line", **parameters: float) -> JobFolder:
    spec = JobSpec(
        name=name,
        trainer=f"tests.trainers:{trainer}",
        modules=ROOT,
        data=base / "points.csv",
        parameters=parameters,
        launcher="python",
        runs_on="ray",
        limits=JobLimits(memory=500_000_000),
    )
    return JobFolder.create(base / name, spec)


def gone(folder: JobFolder, seconds: float = 20) -> bool:
    """Whether nothing of a job runs any more, within some seconds."""
    deadline = time.monotonic() + seconds
    while processes.marked(str(folder.path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not processes.marked(str(folder.path))


def test_jobs_end_there_as_they_do_here_and_are_stopped_whoever_is_left_to_do_it(
    cluster: str, base: Path
) -> None:
    # One test, since tests that run at once would each start a cluster.
    ends_there_as_it_does_here(cluster, base)
    is_stopped_there_although_its_worker_was_killed(cluster, base)


def ends_there_as_it_does_here(cluster: str, base: Path) -> None:
    here, there = job(base, "here"), job(base, "there")
    diverging = job(base, "diverging", learning_rate=50.0)
    endless = job(base, "endless", trainer="Endless")
    with ThreadPoolExecutor(3) as at_once:
        good = at_once.submit(supervise_on_ray, there, 1, address=cluster)
        bad = at_once.submit(supervise_on_ray, diverging, 1, address=cluster)
        stopped = at_once.submit(
            supervise_on_ray, endless, 1, address=cluster, wanted=lambda: endless.progress.pid == 0
        )
        assert supervise(here, 1).how == "done"
    assert (good.result().how, good.result().attempt) == ("done", 1), good.result()
    assert there.metrics() == here.metrics()
    assert (there.artefacts / "line.json").read_bytes() == (here.artefacts / "line.json").read_bytes()
    # What goes wrong there is told as it is here; what is stopped there leaves nothing.
    assert (bad.result().how, stopped.result().how) == ("diverged", "stopped")
    assert gone(endless)


def is_stopped_there_although_its_worker_was_killed(cluster: str, base: Path) -> None:
    with Journal(base / "home") as journal:
        jobs = TrainingJobs(journal.store, journal.home, journal.audit)
        submitted = jobs.submit(job(base, "cancelled", trainer="Endless").spec, by="ann")
        folder = jobs.folder(submitted.id)
        doomed = subprocess.Popen(
            [sys.executable, "-m", "watchkeeper.cli", "jobs", "work", "--lease", "1"],
            env={**os.environ, "WATCHKEEPER_HOME": str(journal.home), "WATCHKEEPER_RAY_ADDRESS": cluster},
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 90
            while folder.progress.pid == 0:
                assert doomed.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            doomed.kill()
            doomed.wait()
        jobs.cancel(submitted.id, by="ann")
        time.sleep(1.5)
        assert processes.marked(str(folder.path)), "it runs on by itself"
        runs = TrainingRuns(journal, Room.of_this_machine(), host=None)
        Worker(Jobs(journal.store), journal.halts, runs.handlers()).run(once=True)
        assert gone(folder)
        assert (jobs.get(submitted.id).status, jobs.get(submitted.id).cluster) == (
            TrainingStatus.CANCELLED,
            "",
        )


def test_a_cluster_that_does_not_answer_is_told(base: Path) -> None:
    ending = supervise_on_ray(job(base, "a"), 1, address=f"http://127.0.0.1:{free_port()}")
    assert ending.how == "crashed"
    assert "the Ray cluster at" in ending.reason
    assert supervise_on_ray(job(base, "b"), 1, address="").how == "spec"


def test_a_cluster_that_takes_requests_and_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "_REQUEST_SECONDS", (0.5, 0.5))
    spec = JobSpec(name="a", trainer="t:T", data=tmp_path, runs_on="ray")
    folder = JobFolder.create(tmp_path / "job", spec)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ending = supervise_on_ray(folder, 1, address=address)
        assert (ending.how, ending.left) == ("crashed", True)
        assert f"the Ray cluster at '{address}' does not do it" in ending.reason
        with pytest.raises(ClusterError, match="does not do it"):
            stop_on_ray(folder, address=address)
