"""A detector without a model: values that break records, at the scale of a point, an hour and a day."""

from __future__ import annotations

import numpy as np

from watchkeeper.tools.predictors.streams import Judgement, Ring, Scales

FLAT_SHARE = 1e-3  # of a value: the least range that a series is given, so that rounding breaks no record
QUIET_HOURS = 6  # after a point stood out, lesser ones are not told as well


class _Range:
    """The least and the greatest value so far."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.empty = True

    def exceeded(self, value: float) -> float:
        """Say by how much of the range a value lies outside of it, and widen it."""
        if self.empty:
            self.low = self.high = value
            self.empty = False
            return 0.0
        width = max(self.high - self.low, FLAT_SHARE * abs(self.high), 1e-9)
        beyond = max(value - self.high, self.low - value, 0.0) / width
        self.high, self.low = max(self.high, value), min(self.low, value)
        return beyond


class RecordStream:
    """Scores a point by how far it breaks a record.

    Three records are kept: of the values, of the medians of the last hour, and of the means of the last day;
    what counts is the share of the range so far by which one is exceeded. So a spike, a shift of level within
    what single points reached before, and a slow change of load stand out alike. A point that stands out less
    than another within the last hours is not told again.

    The median rests on Tukey's running medians (Exploratory Data Analysis, 1977); that a value outside of the
    known range is an anomaly by itself is also what NAB's reference detector assumes.
    """

    def __init__(self, scales: Scales) -> None:
        self._scales = scales
        self._hour, self._day = Ring(scales.hour), Ring(scales.day)
        self._point, self._median, self._mean = _Range(), _Range(), _Range()
        self._recent = Ring(QUIET_HOURS * scales.hour)
        self._rows = 0

    def exceeded(self, value: float) -> float:
        """Take the next point, and say by which share of its range the most broken record is exceeded."""
        self._rows += 1
        self._hour.push(value)
        self._day.push(value)
        beyond = self._point.exceeded(value)
        if len(self._hour) == self._scales.hour:
            beyond = max(beyond, self._median.exceeded(float(np.median(self._hour.array()))))
        if len(self._day) == self._scales.day:
            beyond = max(beyond, self._mean.exceeded(float(self._day.array().mean())))
        return beyond if self._rows > self._scales.settling else 0.0

    def told(self, beyond: float) -> float:
        """Keep quiet about what stands out less than something that was there a few hours ago."""
        shown = beyond if beyond > self._recent.largest() else 0.0
        self._recent.push(beyond)
        return shown

    def judge(self, value: float) -> Judgement:
        """Judge the next point."""
        return Judgement(score=squashed(self.told(self.exceeded(value))))


def squashed(beyond: float) -> float:
    """Return a share of a range as a score: 0.5 for a record exceeded by the whole range so far."""
    return beyond / (1.0 + beyond)
