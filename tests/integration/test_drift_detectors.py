"""The library's detectors: quiet on what does not change, and soon aware of what does."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from watchkeeper.tools.predictors.drift import Adwin, DriftDetector, Kswin


def alarms(detector: DriftDetector, values: list[float]) -> list[int]:
    return [number for number, value in enumerate(values) if detector.update(value)]


@pytest.mark.parametrize(("make", "length"), [(Adwin, 5000), (Kswin, 600)])
def test_a_change_is_told_after_it_and_not_before(make: Callable[[], DriftDetector], length: int) -> None:
    draw = random.Random(3)
    steady = [draw.gauss(0, 1) for _ in range(length)]
    assert alarms(make(), steady) == []
    changed = steady + [draw.gauss(3, 1) for _ in range(200)]
    first = alarms(make(), changed)[0]
    assert length <= first < length + 150


def test_errors_that_become_more_frequent_are_told() -> None:
    draw = random.Random(4)
    rate = [0.05] * 1000 + [0.4] * 500
    first = alarms(Adwin(), [float(draw.random() < each) for each in rate])[0]
    assert 1000 <= first < 1150
