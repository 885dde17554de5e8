"""What a machine has room for: training jobs that would not fit beside each other wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from watchkeeper.runtime.training import lacks_gpus
from watchkeeper.tools.text import counted
from watchkeeper.tools.training.gpus import Gpus, gpus_here
from watchkeeper.tools.training.record import TrainingJob

_SHARE = 0.8
"""Part of the machine's memory that jobs may have, where the settings say nothing."""

_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for training jobs on this machine.

    Attributes:
        memory: Bytes for all jobs together.
        processors: Processors of the machine.
        machine: Its name.
        available: Tells the bytes that are free at this moment.
        gpus: Tells the GPUs that jobs may have; asked only about jobs that want some.
    """

    memory: int
    processors: int
    machine: str = field(default_factory=socket.gethostname)
    available: Callable[[], int] = lambda: int(psutil.virtual_memory().available)
    gpus: Gpus = gpus_here

    @classmethod
    def of_this_machine(cls, memory: int | None = None) -> Room:
        """Return the room here.

        Args:
            memory: Bytes for all jobs together; by default four fifths of the machine's, or of what its
                control group may have.
        """
        if memory is None:
            memory = int(_SHARE * min(psutil.virtual_memory().total, _group_limit()))
        return cls(memory=memory, processors=len(os.sched_getaffinity(0)))

    def never_fits(self, job: TrainingJob, *, alone: bool = True) -> str:
        """Say why a job can never run here, or nothing.

        Args:
            job: The job.
            alone: Whether no other machine could take it; else one that lacks GPUs is left to others.
        """
        limits = job.spec.limits
        if limits.memory > self.memory:
            return (
                f"it may hold {_gb(limits.memory)}, and jobs on {self.machine!r} may hold {_gb(self.memory)} "
                "in all: lower its limits.memory, raise the setting training_memory, or use a larger machine"
            )
        if limits.threads > self.processors:
            return (
                f"it asks for {limits.threads} threads, and {self.machine!r} has {self.processors} "
                "processors: lower its limits.threads"
            )
        there = len(self.gpus()) if limits.gpus and alone else limits.gpus
        return lacks_gpus(limits.gpus, there) if limits.gpus > there else ""

    def waits(self, job: TrainingJob, running: list[TrainingJob], held: Callable[[str], int]) -> str:
        """Say why a job must wait, or nothing.

        Args:
            job: The job.
            running: Jobs that run here.
            held: Tells the bytes that a running job holds now.
        """
        limits = job.spec.limits
        reserved = sum(other.spec.limits.memory for other in running)
        if running and reserved + limits.memory > self.memory:
            return (
                f"waits for memory: it may hold {_gb(limits.memory)}, those that run may hold "
                f"{_gb(reserved)}, and there are {_gb(self.memory)} for all"
            )
        growth = sum(max(0, other.spec.limits.memory - held(other.id)) for other in running)
        free = self.available() - growth
        if limits.memory > free:
            return f"waits for memory: it may hold {_gb(limits.memory)}, and {_gb(max(0, free))} are free"
        threads = sum(other.spec.limits.threads for other in running)
        if running and threads + limits.threads > self.processors:
            return (
                f"waits for processors: it asks for {limits.threads}, and {threads} of {self.processors} "
                "are taken"
            )
        return ""

    def share_gpus(self, job: TrainingJob, taken: Set[str]) -> Sequence[str] | str:
        """Return the GPUs that a job gets, or say why it must wait.

        Args:
            job: The job.
            taken: GPUs that other jobs hold here.
        """
        wanted = job.spec.limits.gpus
        if not wanted:
            return ()
        there = tuple(self.gpus())
        free = [gpu for gpu in there if gpu not in taken]
        if len(there) < wanted:
            return f"waits for a machine with {counted(wanted, 'GPU')}: {self.machine!r} has {len(there)}"
        if len(free) < wanted:
            held = len(there) - len(free)
            return f"waits for GPUs: it asks for {wanted}, and {held} of {len(there)} are taken"
        return tuple(free[:wanted])


def _group_limit() -> int:
    try:
        text = _CGROUP.read_text(encoding="ascii").strip()
    except OSError:
        text = "max"
    return int(text) if text.isdigit() else 2**60


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
