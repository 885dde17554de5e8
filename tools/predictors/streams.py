"""What every detector over a stream of values has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from watchkeeper.tools.predictors.series import Numbers

HOUR_SECONDS = 3600.0
DAY_HOURS = 24
LONGEST_HOUR = 60  # rows; where points come faster, an "hour" is shorter, so that memory is bounded
SETTLING_HOURS = 12


@dataclass(frozen=True, slots=True)
class Scales:
    """How many rows an hour and a day are.

    A series with fewer than one point an hour has hours of one row, and days of 24.
    """

    hour: int

    @classmethod
    def of_step(cls, seconds: float) -> Scales:
        """Return the scales of a series with so many seconds between its points.

        Raises:
            ValueError: If there is no time between them.
        """
        if not seconds > 0:
            raise ValueError(f"the time between two points must be above 0, and is {seconds!r} s")
        return cls(min(LONGEST_HOUR, max(1, round(HOUR_SECONDS / seconds))))

    @property
    def day(self) -> int:
        """Rows of a day."""
        return DAY_HOURS * self.hour

    @property
    def settling(self) -> int:
        """First rows of a stream that are too early to be judged."""
        return SETTLING_HOURS * self.hour


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a detector says of one point, from that point and earlier ones alone.

    Attributes:
        score: How much it stands out, from 0 (as ever) to 1.
        likelihood: Share of ordinary points that were less of a surprise, where the detector knows it.
        expected: The value that was expected, where the detector expects one.
        low: The least value that would be no surprise (99 of 100 are above).
        high: The greatest one (99 of 100 are below).
    """

    score: float
    likelihood: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None


class Stream(Protocol):
    """A detector at work on one series; its memory does not grow."""

    def judge(self, value: float) -> Judgement:
        """Judge the next point, which must be a finite number."""


def scores_of(stream: Stream, values: Numbers) -> Numbers:
    """Return the score of each value, given one after the other."""
    return np.array([stream.judge(value).score for value in values.tolist()])


class Ring:
    """The last few values, oldest first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = np.zeros(2 * size)
        self._end = 0
        self._length = 0

    def push(self, value: float) -> None:
        """Add one, and forget the oldest where there are too many."""
        if self._end == len(self._kept):
            self._kept[: self._size] = self._kept[self._size :]
            self._end = self._size
        self._kept[self._end] = value
        self._end += 1
        self._length = min(self._length + 1, self._size)

    def array(self) -> Numbers:
        """Return them, to be read before the next one is added."""
        return self._kept[self._end - self._length : self._end]

    def __len__(self) -> int:
        return self._length

    def largest(self) -> float:
        """Return the largest; 0 where there is none."""
        return float(self.array().max()) if self._length else 0.0
