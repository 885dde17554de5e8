"""The processes of a job: found by their session and by a mark in their environment, measured, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = "WATCHKEEPER_JOB"
"""Variable that names the job's folder in the environment of all of its processes."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GONE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a job.

    Attributes:
        memory: Bytes that it holds, what it shares included.
        cpu_seconds: Time that it computed, with those of its children that have ended.
    """

    memory: int
    cpu_seconds: float


Members = Mapping[int, Member]


def in_session(leader: int) -> dict[int, Member]:
    """Return the processes of a session that have not ended (proc_pid_stat(5))."""
    found: dict[int, Member] = {}
    for number, fields in _all():
        if int(fields[3]) == leader and fields[0] not in {"Z", "X"}:
            ticks = sum(int(field) for field in fields[11:15])
            found[number] = Member(memory=int(fields[21]) * _PAGE, cpu_seconds=ticks / _TICKS)
    return found


def marked(folder: str) -> set[int]:
    """Return the processes of a job by its folder, wherever they went: also such as left its session."""
    wanted = f"{MARK}={folder}".encode()
    found = set()
    for number, fields in _all():
        if fields[0] in {"Z", "X"} or number == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                found.add(number)
    return found


def exact_memory(members: Iterable[int]) -> int:
    """Return the bytes that processes hold, with what they share divided among them (PSS)."""
    total = 0
    for number in members:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="ascii")
            lines = (line.split() for line in text.splitlines())
            total += sum(int(parts[1]) * 1024 for parts in lines if parts[0] == "Pss:")
    return total


def tell(members: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes; those that have ended are left out."""
    for member in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)


def kill(members: Iterable[int]) -> None:
    """Kill processes and wait until they are gone."""
    left = set(members)
    tell(left, signal.SIGKILL)
    deadline = time.monotonic() + _GONE_SECONDS
    while left and time.monotonic() < deadline:
        alive = {number for number, fields in _all() if fields[0] not in {"Z", "X"}}
        left &= alive
        if left:
            time.sleep(0.02)


def _all() -> Iterator[tuple[int, list[str]]]:
    """Yield all processes with the fields of their status that follow the name, from the third on."""
    for entry in Path("/proc").iterdir():
        name = entry.name
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
            yield int(name), text.rpartition(")")[2].split()
