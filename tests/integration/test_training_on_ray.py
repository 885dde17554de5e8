"""A job that runs on a Ray cluster ends with the same numbers and artefacts as it does here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lamp import folder_in_memory
from tests.trainers import write_points
from watchkeeper.tools.training import processes
from watchkeeper.tools.training.folder import JobFolder
from watchkeeper.tools.training.process import supervise
from watchkeeper.tools.training.ray_jobs import supervise_on_ray
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
    """The address of a cluster of this machine alone, on loopback, of two processors."""
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
                str(ray), "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", "--memory=2000000000",
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


@pytest.mark.skipif(os.environ.get("WATCHKEEPER_RAY") != "1", reason="a cluster takes long: make ray")
def test_it_ends_there_as_it_does_here(cluster: str, base: Path) -> None:
    here, there = job(base, "here"), job(base, "there")
    assert supervise(here, 1).how == "done"
    ending = supervise_on_ray(there, 1, address=cluster)
    assert (ending.how, ending.attempt) == ("done", 1), ending
    assert there.metrics() == here.metrics()
    assert (there.artefacts / "line.json").read_bytes() == (here.artefacts / "line.json").read_bytes()

    # What goes wrong there is told as it is here.
    diverging = job(base, "diverging", learning_rate=50.0)
    assert supervise_on_ray(diverging, 1, address=cluster).how == "diverged"

    # It is stopped there, and nothing of it is left.
    endless = job(base, "endless", trainer="Endless")
    ending = supervise_on_ray(endless, 1, address=cluster, wanted=lambda: endless.progress.pid == 0)
    assert ending.how == "stopped"
    deadline = time.monotonic() + 20
    while processes.marked(str(endless.path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes.marked(str(endless.path))


def test_a_cluster_that_does_not_answer_is_told(base: Path) -> None:
    ending = supervise_on_ray(job(base, "a"), 1, address=f"http://127.0.0.1:{free_port()}")
    assert ending.how == "crashed"
    assert "the Ray cluster at" in ending.reason
    assert supervise_on_ray(job(base, "b"), 1, address="").how == "spec"
