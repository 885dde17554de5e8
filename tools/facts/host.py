"""How busy the processors are, and how much memory is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.facts.process import Sample, sample_processes
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.local import require_local
from watchkeeper.tools.text import shown_name, size_text

SAMPLE_SECONDS = 0.5
TOP = 5  # processes named
# A short sample alone is noise, and the load alone also counts waiting for a disk: both must be high.
BUSY_PERCENT = 90.0
BUSY_LOAD = 1.0  # runnable processes per core over the last minute; a warning
SATURATED_LOAD = 2.0  # likewise; critical
LOW_MEMORY = 10.0  # per cent available; a warning
SCARCE_MEMORY = 5.0  # likewise; critical: the next large allocation wakes the kernel's killer


class HostArguments(Arguments):
    """None: the host is the one that is asked."""


class TopProcess(BaseModel):
    """A process that keeps the processors busy; ``cpu_percent`` is of one core."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    name: str
    cpu_percent: float


class _CpuRaw(Sample):
    host: str
    cores: int = Field(ge=1)
    load: tuple[float, float, float]
    before: dict[str, float]
    after: dict[str, float]


class HostCpuResult(Result):
    """How busy the processors are.

    Attributes:
        host: Name in the inventory.
        cores: How many there are.
        busy_percent: Of all cores over the sample; waiting for a disk is not busy.
        waiting_percent: For a disk.
        stolen_percent: Taken by other virtual machines.
        load_1: Load per core over the last minute.
        load_5: Over the last five minutes.
        load_15: Over the last fifteen minutes.
        sample_seconds: Length of the sample.
        top: The busiest processes.
    """

    host: str
    cores: int
    busy_percent: float
    waiting_percent: float
    stolen_percent: float
    load_1: float
    load_5: float
    load_15: float
    sample_seconds: float
    top: tuple[TopProcess, ...]


class HostCpu(Fact[HostArguments, HostCpuResult]):
    """Sample the processors for half a second."""

    name = "host.cpu"
    summary = "how busy the processors are"
    provenance = Provenance.UNTRUSTED  # processes choose their names
    plain_findings = True
    kinds = frozenset({FindingKind.CPU_BUSY})
    arguments_type = HostArguments
    result_type = HostCpuResult

    def collect(self, target: Target, arguments: HostArguments) -> Raw:  # noqa: ARG002 (there are none)
        """Read the counters of the kernel twice.

        Raises:
            CollectError: If the host is another machine.
        """
        require_local(target, self.name)
        before = psutil.cpu_times()._asdict()
        sampled = sample_processes(SAMPLE_SECONDS, details=False)
        after = psutil.cpu_times()._asdict()
        return sampled.model_dump() | {
            "host": target.host.name,
            "cores": psutil.cpu_count() or 1,
            "load": list(os.getloadavg()),
            "before": before,
            "after": after,
        }

    def interpret(self, raw: Raw, arguments: HostArguments) -> HostCpuResult:  # noqa: ARG002 (there are none)
        """Turn counters into shares."""
        read = _CpuRaw.model_validate(raw)
        before, after = read.before, read.after
        # Time of guests is part of user time already.
        spent = {k: max(0.0, after[k] - before[k]) for k in after if k not in ("guest", "guest_nice")}
        total = sum(spent.values())

        def share(*kinds: str) -> float:
            return round(100 * sum(spent.get(kind, 0.0) for kind in kinds) / total, 1) if total else 0.0

        busiest = sorted(read.processes, key=lambda item: (-item.cpu_seconds, item.pid))
        return HostCpuResult(
            host=read.host,
            cores=read.cores,
            busy_percent=max(0.0, round(100 - share("idle", "iowait"), 1)) if total else 0.0,
            waiting_percent=share("iowait"),
            stolen_percent=share("steal"),
            load_1=round(read.load[0] / read.cores, 2),
            load_5=round(read.load[1] / read.cores, 2),
            load_15=round(read.load[2] / read.cores, 2),
            sample_seconds=read.seconds,
            top=tuple(
                TopProcess(
                    pid=item.pid,
                    name=shown_name(item.name),
                    cpu_percent=round(100 * item.cpu_seconds / read.seconds, 1),
                )
                for item in busiest[:TOP]
                if item.cpu_seconds > 0
            ),
            cut=len(busiest) > TOP,
        )

    def findings(
        self,
        result: HostCpuResult,
        arguments: HostArguments,  # noqa: ARG002 (there are none)
    ) -> Iterator[Finding]:
        """Say whether the processors are the bottleneck."""
        if result.busy_percent >= BUSY_PERCENT and result.load_1 >= BUSY_LOAD:
            severity = Severity.CRITICAL if result.load_1 >= SATURATED_LOAD else Severity.WARNING
            yield Finding(
                kind=FindingKind.CPU_BUSY,
                subject=result.host,
                text=(
                    f"The processors of {result.host} are {result.busy_percent:.0f} % busy, "
                    f"and {result.load_1:.1f} processes per core want to run."
                ),
                severity=severity,
            )


class _MemoryRaw(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    total: int = Field(gt=0)
    available: int
    swap_total: int
    swap_used: int
    killed: int | None


class HostMemoryResult(Result):
    """How much memory is left.

    Attributes:
        host: Name in the inventory.
        total_bytes: Of all memory.
        available_bytes: What processes can get without swapping.
        available_percent: Of all memory.
        swap_total_bytes: Of swap, 0 if there is none.
        swap_used_percent: Of swap.
        killed: Processes that the kernel ended since its start because memory ran out; None if not known.
    """

    host: str
    total_bytes: int
    available_bytes: int
    available_percent: float
    swap_total_bytes: int
    swap_used_percent: float
    killed: int | None


class HostMemory(Fact[HostArguments, HostMemoryResult]):
    """Read how much memory is left."""

    name = "host.memory"
    summary = "how much memory is left"
    kinds = frozenset({FindingKind.MEMORY_LOW})
    arguments_type = HostArguments
    result_type = HostMemoryResult

    def collect(self, target: Target, arguments: HostArguments) -> Raw:  # noqa: ARG002 (there are none)
        """Read the counters of the kernel.

        Raises:
            CollectError: If the host is another machine.
        """
        require_local(target, self.name)
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return {
            "host": target.host.name,
            "total": memory.total,
            "available": memory.available,
            "swap_total": swap.total,
            "swap_used": swap.used,
            "killed": _killed(),
        }

    def interpret(self, raw: Raw, arguments: HostArguments) -> HostMemoryResult:  # noqa: ARG002 (none)
        """Turn sizes into shares."""
        read = _MemoryRaw.model_validate(raw)
        swap_used = round(100 * read.swap_used / read.swap_total, 1) if read.swap_total else 0.0
        return HostMemoryResult(
            host=read.host,
            total_bytes=read.total,
            available_bytes=read.available,
            available_percent=round(100 * read.available / read.total, 1),
            swap_total_bytes=read.swap_total,
            swap_used_percent=swap_used,
            killed=read.killed,
        )

    def findings(
        self,
        result: HostMemoryResult,
        arguments: HostArguments,  # noqa: ARG002 (there are none)
    ) -> Iterator[Finding]:
        """Say whether memory is short."""
        if result.available_percent >= LOW_MEMORY:
            return
        swap = (
            f", and {result.swap_used_percent:.0f} % of the swap is used" if result.swap_total_bytes else ""
        )
        yield Finding(
            kind=FindingKind.MEMORY_LOW,
            subject=result.host,
            text=(
                f"Only {result.available_percent:.0f} % of the memory of {result.host} is available "
                f"({size_text(result.available_bytes)} of {size_text(result.total_bytes)}){swap}."
            ),
            severity=Severity.CRITICAL if result.available_percent < SCARCE_MEMORY else Severity.WARNING,
        )


def _killed() -> int | None:
    """Read the kernel's counter of processes ended for want of memory (``oom_kill``, Linux 4.13)."""
    try:
        counters = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return None
    return next(
        (int(line.split()[1]) for line in counters.splitlines() if line.startswith("oom_kill ")), None
    )
