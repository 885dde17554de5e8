"""How the fill of a disk goes on: damped trends, and intervals from errors that such forecasts made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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
OWN = 168  # steps of a series' own past that say which trend suits it
PRIOR = 24  # steps that those of other series count like


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


TRENDS = tuple(
    Trend(window=window, middling=middling, damping=damping)
    for window, middling, damping in product(WINDOWS, (False, True), DAMPINGS)
)


@dataclass(frozen=True, slots=True)
class History:
    """A series in even steps, and what was known at each of them.

    Attributes:
        values: The series.
        full: The value at which the disk is full; no value is above.
        unit: The usual change of a step: the mean of the last day's changes, up or down.
        growth: The growth of a step by window and kind.
    """

    values: Numbers
    full: float
    unit: Numbers
    growth: dict[tuple[int, bool], Numbers]

    @classmethod
    def of(cls, values: Numbers, full: float) -> History:
        """Look back from every step."""
        changes = np.diff(values)
        return cls(
            values=values,
            full=full,
            unit=np.maximum(_rolling(np.abs(changes), RHYTHM, middling=False), LEAST_CHANGE * full),
            growth={
                (window, middling): _rolling(changes, window, middling=middling)
                for window, middling in product(WINDOWS, (False, True))
            },
        )

    def told(self, trend: Trend, steps: int) -> Numbers:
        """Return what a trend foretells at each step, so many steps later."""
        return self.values + self.growth[trend.window, trend.middling] * trend.reach(steps)

    def errors(self, told: Numbers, steps: int) -> Numbers:
        """Return what was too little (above 0) or too much, in usual changes; the last steps have none.

        More than full is as right as full where the disk was full.
        """
        reached = np.minimum(told[:-steps], self.full)
        return np.asarray((self.values[steps:] - reached) / self.unit[:-steps])


class HorizonModel(BaseModel):
    """How a horizon is forecast, and how wrong that was, as quantiles of the error in usual changes.

    Which trend is followed depends on the series' own past: the one whose errors were least lately, where
    ``losses``, those of many series, count like so many steps of its own (`PRIOR`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    trends: tuple[Trend, ...] = Field(min_length=1)
    losses: tuple[float, ...]
    errors: tuple[float, ...] = ()

    def middles(self, history: History) -> Numbers:
        """Return the middle of the forecast at each step, from that step and earlier ones alone."""
        told = np.array([history.told(trend, self.steps) for trend in self.trends])
        if len(self.trends) == 1:
            return np.asarray(told[0])
        lately = np.array(
            [
                self._lately(np.abs(history.errors(one, self.steps)), len(history.values), loss)
                for one, loss in zip(told, self.losses, strict=True)
            ]
        )
        return np.asarray(told[lately.argmin(axis=0), np.arange(len(history.values))])

    def quantiles(self, history: History) -> Numbers:
        """Return the values at each of the levels: a row for each step of the history."""
        return np.asarray(self.middles(history)[:, None] + history.unit[:, None] * np.array(self.errors))

    def _lately(self, errors: Numbers, rows: int, loss: float) -> Numbers:
        """Return the mean of the last errors that were known at each step."""
        sums = np.concatenate([np.zeros(self.steps + 1), np.cumsum(errors)])[:rows]
        known = np.maximum(np.arange(rows) - self.steps, 0)
        begin = np.maximum(known - OWN, 0)
        before = np.concatenate([np.zeros(1), np.cumsum(errors)])[np.minimum(begin, len(errors))]
        return np.asarray((PRIOR * loss + sums - before) / (PRIOR + known - begin))


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


def resampled(times: Numbers, values: Numbers, step: float, *, most: int | None = None) -> Numbers:
    """Return the last value at or before every so many seconds, counted back from the last time.

    Args:
        times: Seconds, rising.
        values: What was measured then.
        step: Seconds between two of the values that are returned.
        most: How many of them are wanted, the last ones; all where None.
    """
    count = math.floor((times[-1] - times[0]) / step) + 1
    if most is not None:
        count = min(count, most)
    wanted = times[-1] - step * np.arange(count - 1, -1, -1)
    found: Numbers = values[np.searchsorted(times, wanted + 1e-6, side="right") - 1]
    return found


def outlook(models: Sequence[HorizonModel], history: History, row: int, full: float) -> Outlook:
    """Say when the disk is full, from quantiles of all horizons; between two of them a path is straight."""
    now = float(history.values[row])
    if now >= full:
        return Outlook(1.0, 0.0, 0.0, 0.0)
    return outlook_of([m.steps for m in models], [m.quantiles(history)[row] for m in models], now, full)


def outlook_of(horizons: Sequence[int], quantiles: Sequence[Numbers], now: float, full: float) -> Outlook:
    """Say when a path is at ``full``, from the value now and its quantiles at each horizon."""
    steps = [0, *horizons]
    paths = np.column_stack([np.full(len(LEVELS), now), *quantiles])
    reached = [_first(steps, path, full) for path in paths]
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


def _rolling(changes: Numbers, window: int, *, middling: bool) -> Numbers:
    """Return the mean or median change of the last steps, for each value; of fewer at the beginning."""
    found = np.zeros(len(changes) + 1)
    for place in range(1, min(window, len(changes) + 1)):
        found[place] = np.median(changes[:place]) if middling else changes[:place].mean()
    if len(changes) >= window:
        views = sliding_window_view(changes, window)
        found[window:] = np.median(views, axis=1) if middling else views.mean(axis=1)
    return found
