"""What GPUs draw is read of those that a job was given, and of no others."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from watchkeeper.tools.training.environment import gpu_meter


class Nvml(ModuleType):
    """Counts by itself, as the library of a machine with four GPUs would."""

    NVMLError = RuntimeError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.asked: set[int | str] = set()
        self.spent = 0

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int | str:  # noqa: N802
        return number

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int | str:  # noqa: N802
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int | str) -> int:  # noqa: N802
        self.asked.add(handle)
        self.spent += 500
        return self.spent


@pytest.mark.parametrize(
    ("visible", "gpus", "asked"),
    [("2,3", 2, {2, 3}), ("GPU-8a", 1, {"GPU-8a"}), (None, 2, {0, 1}), ("", 0, set()), ("1", 0, set())],
)
def test_the_gpus_of_the_job_are_asked(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, gpus: int, asked: set[int | str]
) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    read = gpu_meter(gpus)
    assert (read() > 0, nvml.asked) == (bool(asked), asked)
