"""What a job runs on: Python, libraries and processor; and what its GPUs draw."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from pydantic import JsonValue

from watchkeeper.tools.training.gpus import VISIBLE, visible_of


def describe_environment() -> dict[str, JsonValue]:
    """Return what would have to be the same for the same numbers."""
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "libraries": _libraries(),
    }


def _libraries() -> dict[str, JsonValue]:
    """Return the version of every installed library, by the names of their folders (PEP 376)."""
    found: dict[str, JsonValue] = {}
    for place in sys.path:
        for folder in sorted(Path(place).glob("*.dist-info")):
            name, _, version = folder.stem.partition("-")
            found.setdefault(name, version)
    return dict(sorted(found.items()))


def gpu_meter(gpus: int) -> Callable[[], float]:
    """Return what tells the joules that GPUs drew from now on: always zero where there are none to be asked.

    It reads NVML's counter of total energy, which GPUs since Volta have, of the GPUs that this process sees.
    NVML itself knows all of the machine.

    Args:
        gpus: How many the process was given.
    """
    names = visible_of(os.environ.get(VISIBLE), gpus)
    if not names:
        return lambda: 0.0
    try:
        pynvml: Any = import_module("pynvml")
    except ImportError:
        return lambda: 0.0
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdecimal()
            else pynvml.nvmlDeviceGetHandleByUUID(name)
            for name in names
        ]

        def read() -> float:
            millijoules = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)
            return float(millijoules) / 1000

        start = read()
    except pynvml.NVMLError:
        return lambda: 0.0
    return lambda: read() - start


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
