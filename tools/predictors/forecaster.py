"""A small network that forecasts the next value of a series, at work: numpy alone, one point at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from watchkeeper.tools.errors import ArtefactError
from watchkeeper.tools.predictors.series import Numbers
from watchkeeper.tools.predictors.streams import DAY_HOURS, Ring, Scales

WEIGHTS = "forecaster.safetensors"
CALIBRATION = "calibration.json"
RECENT = 36  # points that the network sees one by one
AROUND = 3  # points before and after the same time of yesterday
WIDTH = RECENT + DAY_HOURS + 2 * AROUND + 1
CLIPPED = 10.0  # standard deviations of a day
SPREADS = (-6.0, 4.0)  # least and greatest logarithm of a forecast's spread
FLAT_SHARE = 1e-3  # of the level: the least standard deviation of a day
LAYERS = 3
INSIDE = 0.98  # share of ordinary points inside of an interval


class Calibration(BaseModel):
    """What errors were like on rows that were held out: quantiles of |error| / spread, rising."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: tuple[float, ...]
    errors: tuple[float, ...]

    @classmethod
    def of(cls, errors: Numbers, points: int = 500) -> Calibration:
        """Keep quantiles of held-out errors, denser where they are large.

        The share of ``n`` errors that the k-th smallest stands for is k / (n + 1), as in conformal prediction
        (Vovk et al., Algorithmic Learning in a Random World, 2005).
        """
        ordered = np.sort(errors)
        count = len(ordered)
        ranks = count - np.unique(np.geomspace(1, count, min(points, count)).round().astype(int))[::-1]
        return cls(shares=tuple(((ranks + 1) / (count + 1)).tolist()), errors=tuple(ordered[ranks].tolist()))

    def likelihood(self, error: float) -> float:
        """Return the share of ordinary errors that are smaller."""
        return float(np.interp(error, self.errors, self.shares, left=0.0))

    def error_of(self, share: float) -> float:
        """Return the error that so large a share of ordinary ones is below."""
        return float(np.interp(share, self.shares, self.errors))


class Context:
    """The last day of a series, as the network sees it."""

    def __init__(self, scales: Scales) -> None:
        self.scales = scales
        self._size = max(RECENT, scales.day + AROUND + 1)
        self._ring = Ring(self._size)

    def push(self, value: float) -> None:
        """Take the next value."""
        self._ring.push(value)

    def view(self) -> tuple[Numbers, float, float]:
        """Return what the network reads, in standard deviations of a day, and its median and deviation.

        Raises:
            IndexError: If there is no value yet.
        """
        kept = self._ring.array()
        day = kept[-self.scales.day :]
        level = float(np.median(day))
        with np.errstate(over="ignore"):
            spread = float(np.std(day))
        spread = max(spread if math.isfinite(spread) else 1e300, FLAT_SHARE * abs(level), 1e-9)
        if len(kept) < self._size:
            kept = np.concatenate([np.full(self._size - len(kept), kept[0]), kept])
        hours = kept[-self.scales.day :].reshape(DAY_HOURS, self.scales.hour).mean(axis=1)
        place = self._size - self.scales.day
        yesterday = kept[place - AROUND : place + AROUND + 1]
        seen = np.concatenate([kept[-RECENT:], hours, yesterday])
        return np.clip((seen - level) / spread, -CLIPPED, CLIPPED), level, spread


class Network:
    """The trained network; it knows no series, only their shapes, so one serves all."""

    def __init__(self, weights: dict[str, NDArray[np.float32]], calibration: Calibration) -> None:
        self._layers = [
            (weights[f"{n}.weight"].astype(np.float64), weights[f"{n}.bias"].astype(np.float64))
            for n in range(LAYERS)
        ]
        self.calibration = calibration

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Load it from its folder.

        Raises:
            ArtefactError: If a file is missing, damaged or of another shape.
        """
        try:
            weights = load_file(folder / WEIGHTS)
            calibration = Calibration.model_validate_json((folder / CALIBRATION).read_bytes())
            made = cls(weights, calibration)
            made.forecast(np.zeros(WIDTH))
        except (OSError, SafetensorError, ValidationError, KeyError, ValueError) as error:
            why = str(error).splitlines()[0]
            raise ArtefactError(f"{folder} holds no usable forecaster ({why}); train it anew") from error
        return made

    def __deepcopy__(self, memo: object) -> Network:
        """Return itself: it never changes, so copies of a stream share it."""
        return self

    def forecast(self, seen: Numbers) -> tuple[float, float]:
        """Return the value that is expected next, and its spread, both in standard deviations of a day."""
        values = seen
        for place, (weight, bias) in enumerate(self._layers):
            values = weight @ values + bias
            if place + 1 < LAYERS:
                values = values / (1.0 + np.exp(-values))
        return float(values[0]), math.exp(min(max(float(values[1]), SPREADS[0]), SPREADS[1]))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was expected of a point before it was there, and how it compares; in the series' own unit."""

    expected: float
    low: float
    high: float
    error: float
    likelihood: float


class ForecastStream:
    """Forecasts each point of a series right before it is given."""

    def __init__(self, network: Network, scales: Scales) -> None:
        self._network = network
        self._context = Context(scales)
        self._rows = 0
        self._settling = scales.settling
        self._inside = network.calibration.error_of(INSIDE)

    def next(self, value: float) -> Forecast | None:
        """Take the next point and say how it compares; None while the series is too young."""
        found: Forecast | None = None
        if self._rows >= self._settling:
            seen, level, unit = self._context.view()
            mean, spread = self._network.forecast(seen)
            expected, reach = level + mean * unit, self._inside * spread * unit
            error = value - expected
            likelihood = self._network.calibration.likelihood(abs(error) / (spread * unit))
            found = Forecast(expected, expected - reach, expected + reach, error, likelihood)
        self._rows += 1
        self._context.push(value)
        return found
