"""Which processes use the processors and the memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.local import require_local
from watchkeeper.tools.text import process_identity, shown_name, size_text, visible

SAMPLE_SECONDS = 0.5  # short, so that an incident does not wait; long enough for 50 clock ticks
HEAVY_CPU = 90.0  # per cent of one core: busy without a pause
HEAVY_MEMORY = 25.0  # per cent of all memory; a warning
HUGE_MEMORY = 50.0  # likewise; critical
COMMAND_READ = 2000  # characters of a command line that are looked at
COMMAND_LENGTH = 200  # characters of a command line, which others write and people read


class ProcessListArguments(Arguments):
    """How many processes of each kind."""

    limit: int = Field(default=10, ge=1, le=50, description="how many of each")


class ProcessUse(BaseModel):
    """One process.

    Attributes:
        pid: Its number.
        start_time: When it was started (seconds since 1970); with the number it names one process for good.
        name: As the kernel knows it; the process chooses it.
        command: Its command line, for people; others write it.
        user: Who runs it.
        state: As the kernel says, e.g. ``running``, ``sleeping``, ``disk-sleep``.
        cpu_percent: Of one core, over the sample; above 100 with several threads.
        memory_bytes: Resident.
        memory_percent: Of all memory.
        threads: How many.
        own: Whether it is this program or was started by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start_time: float
    name: str
    command: str
    user: str
    state: str
    cpu_percent: float
    memory_bytes: int
    memory_percent: float
    threads: int
    own: bool = False


class SampledProcess(BaseModel):
    """A process as it was read, with the processor time that it used within the sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start_time: float
    name: str
    state: str
    cpu_seconds: float
    memory: int
    own: bool
    user: str = ""
    command: str = ""
    threads: int = 1


class Sample(BaseModel):
    """All processes, and how many seconds lie between the two looks at them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(gt=0)
    processes: tuple[SampledProcess, ...]


class _ListRaw(Sample):
    now: float
    memory: int = Field(gt=0)


class ProcessListResult(Result):
    """The processes that use most.

    Attributes:
        now: When they were looked at.
        count: How many there are.
        zombies: How many have ended but were not waited for.
        by_cpu: The busiest.
        by_memory: The largest.
    """

    now: datetime
    count: int
    zombies: int
    by_cpu: tuple[ProcessUse, ...]
    by_memory: tuple[ProcessUse, ...]


class ProcessList(Fact[ProcessListArguments, ProcessListResult]):
    """List the processes that use most of the processors and of the memory."""

    name = "process.list"
    summary = "which processes use the processors and the memory"
    provenance = Provenance.UNTRUSTED
    kinds = frozenset({FindingKind.PROCESS_HEAVY})
    arguments_type = ProcessListArguments
    result_type = ProcessListResult

    def collect(self, target: Target, arguments: ProcessListArguments) -> Raw:  # noqa: ARG002 (all are read)
        """Look at all processes twice.

        Raises:
            CollectError: If the host is another machine.
        """
        require_local(target, self.name)
        sample = sample_processes(SAMPLE_SECONDS, details=True).model_dump()
        return sample | {"now": time.time(), "memory": psutil.virtual_memory().total}

    def interpret(self, raw: Raw, arguments: ProcessListArguments) -> ProcessListResult:
        """Sort them by what they use."""
        read = _ListRaw.model_validate(raw)
        processes = [
            ProcessUse(
                pid=item.pid,
                start_time=item.start_time,
                name=visible(item.name, 64),
                command=visible(item.command, COMMAND_LENGTH),
                user=visible(item.user, 64),
                state=item.state,
                cpu_percent=round(100 * item.cpu_seconds / read.seconds, 1),
                memory_bytes=item.memory,
                memory_percent=round(100 * item.memory / read.memory, 1),
                threads=item.threads,
                own=item.own,
            )
            for item in read.processes
        ]
        by_cpu = sorted(processes, key=lambda item: (-item.cpu_percent, item.pid))
        by_memory = sorted(processes, key=lambda item: (-item.memory_bytes, item.pid))
        return ProcessListResult(
            now=datetime.fromtimestamp(round(read.now, 3), UTC),
            count=len(processes),
            zombies=sum(item.state == psutil.STATUS_ZOMBIE for item in processes),
            by_cpu=tuple(item for item in by_cpu if item.cpu_percent > 0)[: arguments.limit],
            by_memory=tuple(item for item in by_memory if item.memory_bytes > 0)[: arguments.limit],
            cut=len(processes) > arguments.limit,
        )

    def findings(
        self,
        result: ProcessListResult,
        arguments: ProcessListArguments,  # noqa: ARG002 (not needed)
    ) -> Iterator[Finding]:
        """Say which processes are heavy; never this program itself."""
        for process in _heavy(result):
            uses = " and ".join(_uses(process))
            huge = process.memory_percent >= HUGE_MEMORY
            yield Finding(
                kind=FindingKind.PROCESS_HEAVY,
                subject=str(process.pid),
                text=f"Process {process.pid} (named {shown_name(process.name)}) uses {uses}.",
                severity=Severity.CRITICAL if huge else Severity.WARNING,
                told=f"Process {process.pid} uses {uses}.",
            )

    def offers(self, result: ProcessListResult) -> dict[str, list[str]]:
        """Offer the heavy processes to actions that take one; nothing is gained by ending any other."""
        return {"process": [process_identity(item.pid, item.start_time) for item in _heavy(result)]}


def _heavy(result: ProcessListResult) -> tuple[ProcessUse, ...]:
    """Return those that use much of the machine, each once; never this program itself."""
    listed = {process.pid: process for process in (*result.by_cpu, *result.by_memory)}
    return tuple(process for process in listed.values() if not process.own and _uses(process))


def _uses(process: ProcessUse) -> list[str]:
    """Say what a process uses much of; empty if nothing."""
    uses = []
    if process.cpu_percent >= HEAVY_CPU:
        uses.append(f"{process.cpu_percent:.0f} % of a processor core")
    if process.memory_percent >= HEAVY_MEMORY:
        size = size_text(process.memory_bytes)
        uses.append(f"{process.memory_percent:.0f} % of the memory ({size})")
    return uses


def sample_processes(seconds: float, *, details: bool) -> Sample:
    """Look at all processes at the start and at the end of a span.

    Args:
        seconds: How long the span is.
        details: Whether to read the user, the command line and the threads as well.
    """
    own = psutil.Process()
    family = {own.pid, *(child.pid for child in own.children(recursive=True))}
    started = time.monotonic()
    before = {
        (process.pid, process.create_time()): _cpu_seconds(process) for process in psutil.process_iter()
    }
    time.sleep(seconds)
    measured = time.monotonic() - started
    processes: list[SampledProcess] = []
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                key = (process.pid, process.create_time())
                item: dict[str, Any] = {
                    "pid": process.pid,
                    "start_time": process.create_time(),
                    "name": _utf8(process.name()),
                    "state": process.status(),
                    "cpu_seconds": round(max(0.0, _cpu_seconds(process) - before.get(key, 0.0)), 3),
                    "memory": process.memory_info().rss,
                    "own": process.pid in family,
                }
                if details:
                    item |= {
                        "user": process.username(),
                        "command": _utf8(" ".join(process.cmdline()))[:COMMAND_READ],
                        "threads": process.num_threads(),
                    }
        except psutil.Error:
            continue  # it ended, or is hidden from us, while we looked
        processes.append(SampledProcess(**item))
    return Sample(seconds=round(measured, 3), processes=tuple(processes))


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _utf8(text: str) -> str:
    """Make a name that is not UTF-8 fit for JSON."""
    return text.encode("utf-8", "backslashreplace").decode()
