"""GPUs of this machine, as ``CUDA_VISIBLE_DEVICES`` names them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable that says which GPUs a process sees: numbers or ids, separated by commas; empty for none."""

Gpus = Callable[[], Sequence[str]]
"""Tells the names of the GPUs that jobs here may have."""


def gpus_here() -> tuple[str, ...]:
    """Return the GPUs that jobs on this machine may have: none that are hidden from this process.

    It imports torch, so it is asked only where a job wants a GPU.
    """
    from torch import cuda

    return visible_of(os.environ.get(VISIBLE), cuda.device_count())


def visible_of(variable: str | None, count: int) -> tuple[str, ...]:
    """Return the names of the GPUs that a process sees.

    Args:
        variable: Value of ``CUDA_VISIBLE_DEVICES``; None where it is not set.
        count: How many GPUs the process sees.
    """
    if variable is None:
        return tuple(str(number) for number in range(count))
    return tuple(name.strip() for name in variable.split(",") if name.strip())[:count]
