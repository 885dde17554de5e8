"""What a job cost: time, work of processors, and energy, estimated the way reports of incidents do it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.tools.training.folder import JobProgress


class Cost(BaseModel):
    """What a job cost so far.

    Attributes:
        seconds: Time, all attempts together.
        cpu_seconds: Time that processors computed.
        watt_hours: Energy: the processors' part of what the machine draws while all of them compute, and
            what GPUs measured of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    cpu_seconds: float
    watt_hours: float

    @property
    def text(self) -> str:
        """In one line, for people; empty where it cost nothing yet."""
        if not self.seconds:
            return ""
        return f"{self.seconds:.0f} s, {self.cpu_seconds:.0f} s of processors, about {self.watt_hours:.2g} Wh"


def cost_of(progress: JobProgress, environment: Mapping[str, JsonValue], *, watts: float) -> Cost:
    """Estimate what a job cost.

    Args:
        progress: How far it is.
        environment: What it ran on.
        watts: Power that the machine draws while all of its processors compute.
    """
    processors = environment.get("processors")
    count = processors if isinstance(processors, int) and processors > 0 else os.cpu_count() or 1
    joules = progress.cpu_seconds * watts / count + progress.gpu_joules
    return Cost(seconds=progress.seconds, cpu_seconds=progress.cpu_seconds, watt_hours=joules / 3600)
