"""`predictors retrain`, killed with SIGKILL again and again, trains and promotes once."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.lamp import folder_in_memory
from tests.lifecycles import HOST, NAME, first_version, orchestrator, request
from tests.predictor_homes import empty_home
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.training import processes
from watchkeeper.tools.versions import Versions

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)
SEED = int(os.environ.get("WATCHKEEPER_SEED", "0"))

MOST_KILLS = 3
"""Of one retraining; it has more retries than that."""

# The command line of an installation in which the tests' kind of predictor is registered.
PROGRAM = f"""
import sys
sys.path[:0] = [{str(ROOT / ".links")!r}, {str(ROOT)!r}]
from tests.threshold import KIND
from watchkeeper.cli import main
from watchkeeper.tools.predictors import register_kind
register_kind(KIND, "tests.threshold:Threshold")
main()
"""
OPTIONS = ("--watch", "0", "--solo", "--approve", "yes")
INCIDENT = re.compile(rb"INC-\w+")


class Retraining:
    """The command in a process of its own, until its incident is known."""

    def __init__(self, home: Path, words: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "predictors", "retrain", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"WATCHKEEPER_HOME": str(home), "COLUMNS": "200"},
        )
        assert self.process.stderr is not None
        self.told = self.process.stderr.readline()
        found = INCIDENT.search(self.told)
        assert found is not None, self.told + self.process.stderr.read()
        self.incident = found[0].decode()

    def killed_after(self, seconds: float) -> bool:
        """Kill it, and say whether that was before its end."""
        timer = threading.Timer(seconds, self.process.send_signal, [signal.SIGKILL])
        timer.start()
        try:
            self.told += self.process.communicate(timeout=300)[1]
        finally:
            timer.cancel()
            self.process.kill()
        return self.process.returncode == -signal.SIGKILL


@contextmanager
def prepared() -> Iterator[tuple[Path, list[str]]]:
    """A home in which a version answers, and the words that have it retrained."""
    with folder_in_memory() as base:
        home = base / "home"
        subprocess.run(["cp", "-r", empty_home(), home], check=True)
        first_version(home, base / "data")
        asked = request(base)
        (home / "inventory.yaml").write_text(f"hosts: [{{name: {HOST}}}]")
        # Each kill of a training is an attempt.
        job = asked.job.model_copy(update={"modules": ROOT, "retries": 5})
        spec = job.model_dump(mode="json", exclude_none=True)
        (base / "job.yaml").write_text(yaml.safe_dump(spec))
        yield home, [NAME, "--job", str(base / "job.yaml"), "--held-out", str(asked.held_out), *OPTIONS]


def is_whole(home: Path, incident: str) -> None:
    """It was trained once and promoted once, and nothing is left of any process."""
    moves = [(move.alias, move.before, move.after) for move in Versions(home).history(NAME)]
    assert moves == [("champion", None, 1), ("champion", 1, 2)]
    with orchestrator(home) as o:
        report = o.report(incident)
        assert o.site.jobs is not None
        (job,) = o.site.jobs.list()
        folder = TrainingJobs(o.journal.store, home, o.journal.audit).folder(job.id)
    assert report.outcome == "resolved"
    # What a kill came before was not done: it is planned anew under another id.
    assert {step.status.value for step in report.steps} <= {"verified", "failed"}
    done = [step.action for step in report.steps if step.status.value == "verified"]
    assert done == ["job.submit", "predictor.promote"]
    assert job.status.value == "done"
    assert not processes.marked(str(folder.path.absolute()))


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, id="3 kills"),
        pytest.param(40, id="40 kills", marks=[pytest.mark.crash, pytest.mark.timeout(3600)]),
    ],
)
def test_killed_at_any_time_it_trains_once_and_promotes_once(kills: int) -> None:
    rng = random.Random(SEED)
    with prepared() as (home, words):
        whole = Retraining(home, words)
        began = time.monotonic()
        assert not whole.killed_after(120), whole.told
        seconds = time.monotonic() - began
        assert whole.process.returncode == 0, whole.told
        is_whole(home, whole.incident)
    done = 0
    while done < kills:
        with prepared() as (home, words):
            run = Retraining(home, words)
            incident = run.incident
            # Then it is let alone: a training that is killed more often than its retries fails.
            left = rng.randint(1, MOST_KILLS)
            while run.killed_after(rng.uniform(0, seconds) if left else 240):
                assert left, run.told
                left -= 1
                done += 1
                run = Retraining(home, ["--resume", incident, *OPTIONS])
            assert run.process.returncode == 0, run.told
            is_whole(home, incident)
