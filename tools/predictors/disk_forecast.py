"""When a disk will be full: the predictor that ``disk-forecast`` trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors.anomaly import numbers_of
from watchkeeper.tools.predictors.artefact import read_manifest
from watchkeeper.tools.predictors.growth import (
    HOUR_SECONDS,
    LEVELS,
    OWN,
    History,
    HorizonModel,
    Outlook,
    outlook,
    resampled,
)
from watchkeeper.tools.predictors.interface import Predictor, Row
from watchkeeper.tools.predictors.series import Numbers

KIND = "disk-forecast"
MODEL = "growth.json"
LEAST_STEPS = 25  # a day and one: the usual change must be known
MOST_STEPS = 1000  # of a series, unless its horizon is far: more say nothing about now


class DiskModel(BaseModel):
    """What was learned.

    Attributes:
        step_seconds: Length of a step.
        full: The value at which a disk is full.
        horizons: From the nearest to the farthest.
        line: The same for a straight line through the last day, to compare with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_seconds: float = Field(gt=0)
    full: float
    horizons: tuple[HorizonModel, ...] = Field(min_length=1)
    line: tuple[HorizonModel, ...] = Field(min_length=1)


class DiskForecastPredictor(Predictor):
    """Forecasts a disk from its last values."""

    kind = KIND
    columns: ClassVar[dict[str, str]] = {
        "values": "how full the disk was, the oldest first, in the unit that was trained with",
        "step_seconds": "seconds between two of them",
    }

    def __init__(self, model: DiskModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> DiskForecastPredictor:
        """Load it from its folder.

        Raises:
            ArtefactError: If the folder holds none.
        """
        manifest = read_manifest(folder)
        if manifest.kind != KIND:
            raise ArtefactError(f"{folder} holds no forecast of disks, but a predictor of {manifest.kind!r}")
        try:
            return cls(DiskModel.model_validate_json((folder / MODEL).read_bytes()))
        except (OSError, ValidationError) as error:
            why = str(error).splitlines()[0]
            raise ArtefactError(f"{folder / MODEL} cannot be used ({why}); train it anew") from error

    @property
    def horizon_seconds(self) -> float:
        """How far ahead it looks."""
        return self.model.horizons[-1].steps * self.model.step_seconds

    @property
    def _most(self) -> int:
        """Steps that are looked at: enough for a trend's own errors at the farthest horizon to be known."""
        return max(MOST_STEPS, self.model.horizons[-1].steps + OWN + 1)

    def outlook(self, times: Numbers, values: Numbers) -> Outlook:
        """Say when the disk is full; times of the answer are in steps of the model.

        Raises:
            DataError: If there are too few values.
        """
        history = self._history(times, values)
        return outlook(self.model.horizons, history, len(history.values) - 1, self.model.full)

    def said(self, seen: Outlook) -> dict[str, JsonValue]:
        """Return that part of an answer that an outlook is."""
        hours = self.model.step_seconds / HOUR_SECONDS
        return {
            "probability": seen.probability,
            "horizon_hours": self.model.horizons[-1].steps * hours,
            "hours_to_full": _hours(seen.likely, hours),
            "earliest_hours": _hours(seen.earliest, hours),
            "latest_hours": _hours(seen.latest, hours),
        }

    def _history(self, times: Numbers, values: Numbers) -> History:
        steps = resampled(times, values, self.model.step_seconds, most=self._most)
        if len(steps) < LEAST_STEPS:
            hours = (LEAST_STEPS - 1) * self.model.step_seconds / HOUR_SECONDS
            raise DataError(f"the values span too little; give those of at least {hours:g} hours")
        return History.of(steps, self.model.full)

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        """Forecast each row: hours until full, and the quantiles of the value at each horizon.

        Raises:
            DataError: If a row lacks a column or holds a value of a wrong kind, or too few values.
        """
        return [self._answer(number, row) for number, row in enumerate(rows, start=1)]

    def _answer(self, number: int, row: Row) -> dict[str, JsonValue]:
        read, step = numbers_of(row, number)
        values, times = np.array(read), step * np.arange(len(read), dtype=np.float64)
        if not read:
            raise DataError(f"row {number}: 'values' is empty; give those of at least a day")
        try:
            history = self._history(times, values)
        except DataError as error:
            raise DataError(f"row {number}: {error}") from error
        model, last = self.model, len(history.values) - 1
        hours = model.step_seconds / HOUR_SECONDS
        paths = [h.quantiles(history)[last].tolist() for h in model.horizons]
        middle = LEVELS.index(0.5)
        return {
            **self.said(outlook(model.horizons, history, last, model.full)),
            "hours": [h.steps * hours for h in model.horizons],
            "low": [path[0] for path in paths],
            "middle": [path[middle] for path in paths],
            "high": [path[-1] for path in paths],
        }


def _hours(steps: float | None, hours: float) -> float | None:
    return None if steps is None else steps * hours
