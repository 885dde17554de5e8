"""Detectors over streams: what stands out, and that nothing of the future is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from watchkeeper.tools.predictors.records import RecordStream, squashed
from watchkeeper.tools.predictors.streams import Ring, Scales, scores_of

FIVE_MINUTES = Scales.of_step(300)


def daily(days: int, seed: int = 1) -> np.ndarray:
    at = np.arange(days * 288)
    noise = np.random.default_rng(seed).normal(0, 1.0, len(at))
    return 50 + 20 * np.sin(2 * np.pi * at / 288) + noise


def scored(values: np.ndarray) -> np.ndarray:
    return scores_of(RecordStream(FIVE_MINUTES), values)


def test_past_scores_are_the_same_whatever_the_future_holds() -> None:
    values, cut = daily(4), 700
    other = values.copy()
    other[cut:] = np.random.default_rng(9).normal(-1e6, 1e5, len(values) - cut)
    assert scored(values)[:cut].tolist() == scored(other)[:cut].tolist()
    assert scored(values)[:cut].tolist() == scored(values[:cut]).tolist()
    assert scored(values)[cut:].tolist() != scored(other)[cut:].tolist()


def test_a_spike_stands_out_at_once_and_once() -> None:
    values = daily(4)
    values[800:805] = 140.0
    scores = scored(values)
    assert int(scores.argmax()) == 800
    assert scores[800] > 0.5
    assert scores[801:870].max() == 0.0


def test_a_shift_of_level_stands_out_although_single_points_were_there_before() -> None:
    values = np.random.default_rng(2).normal(10, 1, 1500)
    values[::40] = 20.0
    calm = scored(values)
    values[1001:] += 6.0
    shifted = scored(values)
    assert calm[400:].max() < 0.2
    assert shifted[1001:1030].max() > 0.3


def test_a_slow_change_of_load_stands_out_within_a_day() -> None:
    values = daily(8)
    calm = scored(values)
    values[1500:] = 50 + np.abs(values[1500:] - 50)  # the nights are as busy as the days
    assert scored(values)[1500:1800].max() > 2 * calm[600:].max()


def test_nothing_is_said_of_the_first_half_day_and_of_a_flat_line() -> None:
    values = np.full(600, 45.0)
    assert scored(values).max() == 0.0
    values[FIVE_MINUTES.settling - 1] = 1e9
    assert scored(values)[: FIVE_MINUTES.day - 1].max() == 0.0
    values[FIVE_MINUTES.settling - 1] = 45.0
    values[FIVE_MINUTES.settling] = 46.0
    assert scored(values)[FIVE_MINUTES.settling] > 0.5


def test_scores_are_between_0_and_1_for_any_finite_value() -> None:
    values = daily(3)
    values[500], values[600], values[700] = 1e300, -1e300, 5e-324
    scores = scored(values)
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert squashed(1.0) == 0.5


def test_scales_are_hours_and_days_of_the_series() -> None:
    assert (FIVE_MINUTES.hour, FIVE_MINUTES.day, FIVE_MINUTES.settling) == (12, 288, 144)
    assert Scales.of_step(1).day == 1440  # memory is bounded
    assert Scales.of_step(86400).day == 24
    with pytest.raises(ValueError, match="above 0, and is 0"):
        Scales.of_step(0)


def test_memory_does_not_grow() -> None:
    ring = Ring(5)
    for value in range(100):
        ring.push(value)
    assert ring.array().tolist() == [95, 96, 97, 98, 99]
    stream = RecordStream(Scales(2))

    def held() -> int:
        rings = [part for part in vars(stream).values() if isinstance(part, Ring)]
        return sum(len(part) + sys.getsizeof(part.array()) for part in rings)

    for value in daily(1).tolist():
        stream.judge(value)
    after_a_day = held()
    for value in daily(2).tolist():
        stream.judge(value)
    assert held() == after_a_day
