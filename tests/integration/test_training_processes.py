"""Training happens in processes of its own: watched, limited, resumed, and all gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lamp import folder_in_memory
from tests.trainers import write_points
from watchkeeper.tools.training import processes, trainer_of
from watchkeeper.tools.training.folder import Ending, JobFolder
from watchkeeper.tools.training.process import accelerate_config, supervise
from watchkeeper.tools.training.spec import JobLimits, JobSpec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base() -> Iterator[Path]:
    with folder_in_memory() as folder:
        write_points(folder / "points.csv")
        yield folder


def job(
    base: Path, name: str, *, trainer: str = "Line", limits: JobLimits | None = None, **parameters: float
) -> JobFolder:
    spec = JobSpec(
        name=name,
        trainer=f"tests.trainers:{trainer}",
        modules=ROOT,
        data=base / "points.csv",
        parameters=parameters,
        seed=11,
        launcher="python",
        limits=limits or JobLimits(),
    )
    return JobFolder.create(base / name, spec)


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def nothing_left(folder: JobFolder) -> bool:
    return not processes.marked(str(folder.path))


def test_a_killed_run_goes_on_from_its_checkpoint_with_the_curve_of_one_that_was_not(base: Path) -> None:
    whole = job(base, "whole")
    JobFolder.create(whole.path, whole.spec.model_copy(update={"launcher": "accelerate"}))
    assert supervise(whole, 1) == Ending(attempt=1, how="done")
    cut = job(base, "cut", kill_at=13)
    first = supervise(cut, 1)
    assert (first.how, first.may_pass) == ("crashed", True)
    assert "SIGKILL" in first.reason
    assert cut.metrics()[-1]["step"] == 13
    assert not cut.artefacts.exists()
    spent = cut.progress.cpu_seconds
    assert spent > 0
    JobFolder.create(cut.path, cut.spec.model_copy(update={"parameters": {}}))
    assert supervise(cut, 2).how == "done"
    assert len(whole.metrics()) == 20
    assert cut.metrics() == whole.metrics()
    assert (cut.artefacts / "line.json").read_bytes() == (whole.artefacts / "line.json").read_bytes()
    assert cut.environment["libraries"]["numpy"]  # type: ignore[index,call-overload]
    assert cut.progress.cpu_seconds > spent


def test_accelerate_starts_it_and_tells_how_it_was_killed(base: Path) -> None:
    launched = job(base, "launched", kill_at=7)
    JobFolder.create(launched.path, launched.spec.model_copy(update={"launcher": "accelerate"}))
    ending = supervise(launched, 1)
    assert (ending.how, ending.may_pass) == ("crashed", True)
    assert "SIGKILL" in ending.reason
    assert [line["step"] for line in launched.metrics()] == [*range(1, 8)]


def test_the_trainer_of_the_examples_learns(base: Path) -> None:
    data = base / "load.csv"
    data.write_text("1,10\n2,20\n3,30\n4,40\n")
    spec = JobSpec.of_options(
        {"trainer": "own_trainer:Latency", "modules": ROOT / "examples", "data": data, "launcher": "python"}
    )
    folder = JobFolder.create(base / "example", spec)
    assert supervise(folder, 1).how == "done"
    trainer = trainer_of("examples.own_trainer:Latency")
    scored = trainer.evaluate(folder.artefacts, data, trainer.parse_parameters({}))
    assert scored.metrics["minus_error"] > -1
    assert folder.metrics()[-1]["loss"] < folder.metrics()[0]["loss"]


def test_gpus_are_told_to_accelerate() -> None:
    spec = JobSpec(name="a", trainer="t", data=Path("/d"), limits=JobLimits(gpus=2))
    told = accelerate_config(spec)
    assert (told["distributed_type"], told["num_processes"], told["use_cpu"]) == ("MULTI_GPU", 2, False)


@pytest.mark.parametrize(
    ("trainer", "limits", "parameters", "how", "said"),
    [
        ("Line", {}, {"learning_rate": 50.0}, "diverged", "loss is inf in step"),
        ("Hungry", {"memory": 200_000_000}, {}, "memory", "more than its limit of 200 MB"),
        ("Endless", {"seconds": 1.5}, {}, "seconds", "longer than its limit of 1.5 s"),
        ("Line", {}, {"epochs": 2, "speed": 3}, "spec", "parameter speed"),
        ("Nobody", {}, {}, "spec", "Nobody"),
    ],
)
def test_what_goes_wrong_is_told_and_nothing_is_left(
    base: Path, trainer: str, limits: dict[str, float], parameters: dict[str, float], how: str, said: str
) -> None:
    folder = job(base, "a", trainer=trainer, limits=JobLimits.model_validate(limits), **parameters)
    ending = supervise(folder, 1, grace=0.5)
    assert ending.how == how, folder.log.read_text()
    assert said in ending.reason
    assert not ending.may_pass
    assert not folder.artefacts.exists()
    assert nothing_left(folder)


def test_data_that_cannot_be_learned_from_are_named(base: Path) -> None:
    folder = job(base, "a")
    (base / "points.csv").write_text("1,2\n1,two\n")
    ending = supervise(folder, 1)
    assert ending.how == "data"
    assert "'two'" in ending.reason


def test_who_is_not_wanted_any_more_is_ended_with_all_that_it_started(base: Path) -> None:
    folder = job(base, "a", trainer="Endless")
    stray: list[int] = []

    def wanted() -> bool:
        # A process of a session of its own, as a daemon would be.
        note = folder.unfinished / "sleeper"
        if note.exists() and note.read_text():
            stray.append(int(note.read_text()))
        return not stray

    assert supervise(folder, 1, wanted=wanted, grace=0.5).how == "stopped"
    assert nothing_left(folder)
    assert processes.in_session(stray[0]) == {}


def test_processes_end_with_whoever_watches_over_them(base: Path) -> None:
    folder = job(base, "a", trainer="Line", pause=0.05, epochs=2000)
    watcher = subprocess.Popen([sys.executable, "-c", WATCH, str(folder.path)], cwd=ROOT, env={**os.environ})
    wait_for(lambda: folder.progress.pid > 0 and len(folder.metrics()) > 5)
    watcher.send_signal(signal.SIGKILL)
    watcher.wait()
    wait_for(lambda: nothing_left(folder), 10)
    # A process that ends has no environment any more a moment before its files are closed.
    with folder.held(patience=5) as alone:
        assert alone


WATCH = """
import sys
from pathlib import Path
from watchkeeper.tools.training.folder import JobFolder
from watchkeeper.tools.training.process import supervise
supervise(JobFolder(Path(sys.argv[1])), 1)
"""


def test_it_computes_on_as_many_processors_as_it_was_given_and_after_others(base: Path) -> None:
    folder = job(base, "a", pause=0.1, epochs=600)
    seen: list[tuple[int, int]] = []

    def wanted() -> bool:
        pid = folder.progress.pid
        if pid and folder.metrics():
            seen.append((len(os.sched_getaffinity(pid)), os.getpriority(os.PRIO_PROCESS, pid)))
        return not seen

    supervise(folder, 1, wanted=wanted)
    processors, niceness = seen[0]
    assert processors == 1
    assert niceness >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)


def test_no_secret_of_this_process_is_told_to_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCHKEEPER_TOKEN", "PGPASSWORD", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hidden-word")
    folder = job(base, "a", pause=0.1, epochs=600)
    seen: list[bytes] = []

    def wanted() -> bool:
        pid = folder.progress.pid
        if pid and folder.metrics():
            seen.append(Path(f"/proc/{pid}/environ").read_bytes())
        return not seen

    supervise(folder, 1, wanted=wanted)
    assert b"hidden-word" not in seen[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "watchkeeper-test", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (it takes root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_it_and_the_last_checkpoint_stays(small_disk: Path) -> None:
    write_points(small_disk / "points.csv")
    folder = job(small_disk, "a", save_every=1, ballast=900_000, epochs=3)
    ending = supervise(folder, 1)
    assert ending.how == "no-space", (ending, folder.log.read_text())
    assert "make room" in ending.reason
    assert not ending.may_pass
    assert nothing_left(folder)
    kept = folder.checkpoint()
    assert kept is not None
    assert kept[0].step == 2
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert supervise(folder, 2).how == "done"
    assert [line["step"] for line in folder.metrics()] == [1, 2, 3]
