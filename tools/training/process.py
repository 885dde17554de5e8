"""Watching over the process of a training job: it keeps its limits, and nothing of it is left at the end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from watchkeeper.tools.training import processes
from watchkeeper.tools.training.folder import Ending, JobFolder, JobProgress
from watchkeeper.tools.training.gpus import VISIBLE
from watchkeeper.tools.training.run import ATTEMPT, LIFELINE, PROCESSORS
from watchkeeper.tools.training.spec import JobSpec

GRACE_SECONDS = 10.0
"""Time from SIGTERM to SIGKILL."""

_POLL_SECONDS = 0.1
_SLOWEST_POLL_SECONDS = 1.0
_LOOKING_SHARE = 0.02
"""Share of a processor that is spent on looking at processes, where a machine runs thousands."""

_MODULE = "watchkeeper.tools.training.run"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class _Limit:
    how: str
    reason: str


@dataclass(slots=True)
class _Watched:
    """What was seen of an attempt: the limit that it broke, whether it was told to end, and what it took."""

    limit: _Limit | None = None
    asked: bool = False
    cpu_seconds: float = 0.0
    peak_memory: int = 0


def supervise(
    folder: JobFolder,
    attempt: int,
    *,
    gpus: Sequence[str] | None = None,
    wanted: Callable[[], bool] = lambda: True,
    grace: float = GRACE_SECONDS,
) -> Ending:
    """Do one attempt of a job in processes of its own, and watch over them to their end.

    If this process dies, they die: the far end of their standard input is its alone.

    Args:
        folder: The job's folder.
        attempt: Number of the attempt, from 1.
        gpus: Names of the GPUs that it sees; by default those that this process sees, if it wants any.
        wanted: Asked several times a second; the job is stopped, to go on later, once it says no.
        grace: Seconds from SIGTERM to SIGKILL.

    Raises:
        JobFolderError: If the folder is none of a job.
    """
    spec = folder.spec
    mark = str(folder.path.absolute())
    processes.kill(processes.marked(mark))
    before = folder.progress
    try:
        folder.reserve_ending()
        command = _command(folder, spec)
        log = folder.log.open("ab")
    except OSError as error:
        return Ending(
            attempt=attempt,
            how="no-space",
            reason=f"{error.strerror} for {str(error.filename or folder.path)!r}: make room, then resume it",
        )
    started = time.monotonic()
    with log, _started(command, folder, log.fileno(), _environment(spec, mark, attempt, gpus)) as child:
        try:
            seen = _watch(child, spec, before.seconds, wanted, grace)
        finally:
            processes.kill({*processes.in_session(child.pid), *processes.marked(mark)} - {child.pid})
            if child.poll() is None:
                child.kill()
            child.wait()
    _account(folder, before, attempt, time.monotonic() - started, seen)
    return _ending(folder, attempt, child.returncode, seen)


def _watch(
    child: subprocess.Popen[bytes], spec: JobSpec, spent: float, wanted: Callable[[], bool], grace: float
) -> _Watched:
    """Wait for the end of all processes."""
    started = time.monotonic()
    seen = _Watched()
    kill_at: float | None = None
    while True:
        ended = child.poll() is not None
        began = time.thread_time()
        members = processes.in_session(child.pid)
        pause = (time.thread_time() - began) / _LOOKING_SHARE
        pause = min(max(pause, _POLL_SECONDS), _SLOWEST_POLL_SECONDS)
        seen.cpu_seconds = max(seen.cpu_seconds, sum(member.cpu_seconds for member in members.values()))
        seen.peak_memory = max(seen.peak_memory, sum(member.memory for member in members.values()))
        if ended and (not members or kill_at is None):
            return seen
        now = time.monotonic()
        if kill_at is None:
            seen.limit = _broken(spec, spent + now - started, members)
            seen.asked = seen.limit is None and not wanted()
            if seen.limit is not None or seen.asked:
                processes.tell(members, signal.SIGTERM if seen.asked else signal.SIGKILL)
                kill_at = now + grace
        elif now >= kill_at:
            processes.tell(members, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if ended:
                time.sleep(pause)
            else:
                child.wait(pause)


def _broken(spec: JobSpec, seconds: float, members: processes.Members) -> _Limit | None:
    limits = spec.limits
    if seconds > limits.seconds:
        return _Limit("seconds", f"it took longer than its limit of {limits.seconds:g} s")
    held = sum(member.memory for member in members.values())
    # What processes share is counted once only where it matters.
    if held > limits.memory and (exact := processes.exact_memory(members)) > limits.memory:
        return _Limit(
            "memory", f"it held {exact / 1e6:.0f} MB, more than its limit of {limits.memory / 1e6:.0f} MB"
        )
    return None


def _ending(folder: JobFolder, attempt: int, status: int, seen: _Watched) -> Ending:
    said = folder.ending(attempt)
    if said is not None and said.how == "done" and folder.artefacts.is_dir():
        return said
    if seen.limit is not None:
        return Ending(attempt=attempt, how=seen.limit.how, reason=seen.limit.reason)
    if seen.asked:
        return Ending(attempt=attempt, how="stopped", reason="it was told to end")
    if said is not None and said.how != "done":
        # Somebody else told it to end.
        return said if said.how != "stopped" else said.model_copy(update={"how": "crashed"})
    if shutil.disk_usage(folder.path).free == 0:
        reason = f"no space is left where {str(folder.path)!r} is: make room, then resume the job"
        return Ending(attempt=attempt, how="no-space", reason=reason)
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return Ending(attempt=attempt, how="crashed", reason=f"its process {how} and left no word{_last(folder)}")


def _last(folder: JobFolder) -> str:
    try:
        with folder.log.open("rb") as stream:
            stream.seek(max(0, folder.log.stat().st_size - 2000))
            lines = stream.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return f"; the log ends with {lines[-1][-300:]!r}" if lines else ""


def _account(folder: JobFolder, before: JobProgress, attempt: int, seconds: float, seen: _Watched) -> None:
    """Add what the process could not note by itself any more."""
    last = folder.progress
    with contextlib.suppress(OSError):
        folder.write_progress(
            last.model_copy(
                update={
                    "attempt": attempt,
                    "seconds": before.seconds + seconds,
                    "cpu_seconds": max(last.cpu_seconds, before.cpu_seconds + seen.cpu_seconds),
                    "peak_memory": max(last.peak_memory, seen.peak_memory),
                    "memory": 0,
                }
            )
        )


def _command(folder: JobFolder, spec: JobSpec) -> Sequence[str]:
    target = str(folder.path.absolute())
    if spec.launcher == "python":
        return [sys.executable, "-m", _MODULE, target]
    config = folder.path / "accelerate.yaml"
    config.write_text(yaml.safe_dump(accelerate_config(spec)), encoding="utf-8")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launch, "--num_cpu_threads_per_process", str(spec.limits.threads), "-m", _MODULE, target]


def accelerate_config(spec: JobSpec) -> dict[str, object]:
    """Return the configuration of `accelerate launch`: one process, or one for each GPU."""
    gpus = spec.limits.gpus
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if gpus > 1 else "NO",
        "num_processes": max(1, gpus),
        "num_machines": 1,
        "machine_rank": 0,
        "use_cpu": gpus == 0,
        "mixed_precision": "no",
        "debug": False,
    }


_SECRET = re.compile(r"^WATCHKEEPER_|PASS|SECRET|TOKEN|CREDENTIAL|(^|_)(API_?|ACCESS_?)?KEY", re.IGNORECASE)
"""Names of variables that a job is not given."""


def _environment(spec: JobSpec, mark: str, attempt: int, gpus: Sequence[str] | None) -> dict[str, str]:
    """What the process sees: nothing called like a secret, no network for models, its threads, its GPUs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "WATCHKEEPER_HOME" or not _SECRET.search(name)
    }
    if spec.limits.gpus == 0:
        kept[VISIBLE] = ""
    elif gpus is not None:
        kept[VISIBLE] = ",".join(gpus)
    return {
        **kept,
        **dict.fromkeys(_THREADS, str(spec.limits.threads)),
        "HF_HUB_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        LIFELINE: "1",
        ATTEMPT: str(attempt),
        PROCESSORS: ",".join(map(str, _processors(spec))),
        processes.MARK: mark,
    }


def _processors(spec: JobSpec) -> list[int]:
    """Choose processors for a job: others for each, as far as there are others, the first ones last."""
    available = sorted(os.sched_getaffinity(0), reverse=True)
    start = int(spec.digest, 16) % len(available)
    turned = available[start:] + available[:start]
    return sorted(turned[: spec.limits.threads])


def _started(
    command: Sequence[str], folder: JobFolder, log: int, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=Path(folder.path),
        env=environment,
        start_new_session=True,
    )
