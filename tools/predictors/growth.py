"""How the fill of a disk goes on: damped trends, and intervals from errors that such forecasts made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.tools.predictors.series import Numbers

HOUR_SECONDS = 3600.0
LEVELS = tuple(round(0.05 * place, 2) for place in range(1, 20))
"""Levels of the quantiles that are kept; the outermost ones make an interval of 90 %."""

HORIZONS = (1, 2, 3, 6, 12, 24, 48, 72, 120, 168)
WINDOWS = (6, 24, 72, 168)
DAMPINGS = (1.0, 0.99, 0.95, 0.8, 0.0)
RHYTHM = 24  # steps over which the usual change is measured
LEAST_CHANGE = 1e-4  # of a full disk, a step


class Trend(BaseModel):
    """One way to go on from the last values.

    Attributes:
        window: Steps that are looked back.
        middling: Whether the growth of a step is the median of the window's steps, which a cleanup does not
            disturb, or their mean.
        damping: What is left of a step's growth in the next one (Gardner and McKenzie, "Forecasting Trends in
            Time Series", 1985); 1 is a straight line, 0 says that nothing changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(ge=1)
    middling: bool = False
    damping: float = Field(ge=0, le=1)

    def reach(self, horizon: int) -> float:
        """Return how many undamped steps of growth so many steps amount to."""
        if self.damping == 1.0:
            return float(horizon)
        return self.damping * (1.0 - self.damping**horizon) / (1.0 - self.damping)


LINE = Trend(window=24, damping=1.0)
"""What people do by hand: the straight line of the last day."""


class HorizonModel(BaseModel):
    """How a horizon is forecast, and how wrong that was, as quantiles of the error in usual changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    trend: Trend
    errors: tuple[float, ...]

    def quantiles(self, values: Numbers, full: float) -> Numbers:
        """Return the value at each of the levels, so many steps after the last value."""
        middle = values[-1] + growth_of(values, self.trend) * self.trend.reach(self.steps)
        return np.asarray(middle + np.array(self.errors) * usual_change(values, full))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected of a disk; times in steps, None where it is not within the horizon.

    Attributes:
        probability: That it is full within the horizon.
        likely: When it is full as likely as not.
        earliest: When it is full with a probability of 5 %.
        latest: When it is full with a probability of 95 %.
    """

    probability: float
    likely: float | None
    earliest: float | None
    latest: float | None


def resampled(times: Numbers, values: Numbers, step: float) -> Numbers:
    """Return the last value at or before every so many seconds, counted back from the last time."""
    count = math.floor((times[-1] - times[0]) / step) + 1
    wanted = times[-1] - step * np.arange(count - 1, -1, -1)
    found: Numbers = values[np.searchsorted(times, wanted + 1e-6, side="right") - 1]
    return found


def growth_of(values: Numbers, trend: Trend) -> float:
    """Return the growth of a step at the end of the values."""
    steps = np.diff(values[-trend.window - 1 :])
    if len(steps) == 0:
        return 0.0
    return float(np.median(steps) if trend.middling else steps.mean())


def usual_change(values: Numbers, full: float) -> float:
    """Return by how much a step usually changes: the mean of the last day's changes, up or down."""
    steps = np.diff(values[-RHYTHM - 1 :])
    return max(float(np.abs(steps).mean()) if len(steps) else 0.0, LEAST_CHANGE * full)


def outlook(models: Sequence[HorizonModel], values: Numbers, full: float) -> Outlook:
    """Say when the disk is full, from quantiles of all horizons; between two of them a path is straight."""
    if values[-1] >= full:
        return Outlook(1.0, 0.0, 0.0, 0.0)
    steps = [0, *(model.steps for model in models)]
    paths = np.column_stack(
        [np.full(len(LEVELS), values[-1]), *(model.quantiles(values, full) for model in models)]
    )
    reached = [_first(steps, path, full) for path in paths]
    # The k-th of the quantiles stays below `full` with the probability that belongs to its level.
    probability = 0.0
    for column in paths.T[1:]:
        below = float(np.interp(full, column, LEVELS, left=0.0, right=1.0))
        probability = max(probability, 1.0 - below)
    middle = LEVELS.index(0.5)
    return Outlook(probability, reached[middle], reached[-1], reached[0])


def _first(steps: Sequence[int], path: Numbers, full: float) -> float | None:
    """Return when a path is full for the first time."""
    for place in range(1, len(steps)):
        if path[place] >= full:
            share = (full - path[place - 1]) / (path[place] - path[place - 1])
            return float(steps[place - 1] + share * (steps[place] - steps[place - 1]))
    return None
