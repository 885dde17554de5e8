"""Anomalies of metrics: records that a forecaster did not see coming."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeGuard

from pydantic import JsonValue

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors.artefact import read_manifest
from watchkeeper.tools.predictors.explain import Piece, occlude_window
from watchkeeper.tools.predictors.forecaster import ForecastStream, Network
from watchkeeper.tools.predictors.interface import Predictor, Row
from watchkeeper.tools.predictors.records import RecordStream, squashed
from watchkeeper.tools.predictors.rows import finite
from watchkeeper.tools.predictors.series import Numbers
from watchkeeper.tools.predictors.streams import Judgement, Scales, Stream

KIND = "anomaly"
MOST_VALUES = 100_000
LEAST_STEP, MOST_STEP = 1e-3, 3.2e7  # seconds: a millisecond to a year


class AnomalyStream:
    """Scores a point by how far it breaks a record, and how little the forecaster expected it.

    A record counts by the likelihood of the point's error: the share of ordinary errors that are smaller. So
    what follows the day, or grows as it always did, is not told although it is a record.
    """

    def __init__(self, network: Network, scales: Scales) -> None:
        self._forecasts = ForecastStream(network, scales)
        self._records = RecordStream(scales)

    def judge(self, value: float) -> Judgement:
        """Judge the next point."""
        forecast = self._forecasts.next(value)
        beyond = self._records.exceeded(value)
        if forecast is None:
            return Judgement(score=squashed(self._records.told(beyond)))
        return Judgement(
            score=squashed(self._records.told(beyond * forecast.likelihood)),
            likelihood=forecast.likelihood,
            expected=forecast.expected,
            low=forecast.low,
            high=forecast.high,
        )


def behind(stream: Stream, window: Numbers, width: int) -> tuple[Piece, ...]:
    """Return what each stretch of a window is worth to the score of its last point.

    Args:
        stream: What has judged all points before the window; it is left as it is.
        window: The points.
        width: Points of a stretch.
    """

    def score(values: Numbers) -> float:
        again = copy.deepcopy(stream)
        return [again.judge(value) for value in values.tolist()][-1].score

    return occlude_window(score, window, width=width, fill="held")


class AnomalyPredictor(Predictor):
    """Judges the last of a row's values by those before it."""

    kind = KIND
    columns: ClassVar[dict[str, str]] = {
        "values": "values of the metric, the oldest first; the last one is judged",
        "step_seconds": "seconds between two of them",
    }

    def __init__(self, network: Network, threshold: float) -> None:
        self._network = network
        self.threshold = threshold

    @classmethod
    def load(cls, folder: Path) -> AnomalyPredictor:
        """Load it from its folder.

        Raises:
            ArtefactError: If the folder holds none.
        """
        manifest = read_manifest(folder)
        threshold = manifest.parameters.get("threshold")
        if manifest.kind != KIND or not isinstance(threshold, float):
            raise ArtefactError(f"{folder} holds no predictor of anomalies, but of kind {manifest.kind!r}")
        return cls(Network.load(folder), threshold)

    def stream(self, step_seconds: float) -> Stream:
        """Begin to judge a series, one point at a time.

        Raises:
            ValueError: If the step is not above 0.
        """
        return AnomalyStream(self._network, Scales.of_step(step_seconds))

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        """Judge the last value of each row.

        Raises:
            DataError: If a row lacks a column or holds a value of a wrong kind, or too few values.
        """
        return [self._answer(number, row) for number, row in enumerate(rows, start=1)]

    def _answer(self, number: int, row: Row) -> dict[str, JsonValue]:
        values, step = numbers_of(row, number)
        scales = Scales.of_step(step)
        if len(values) <= scales.settling:
            raise DataError(
                f"row {number}: 'values' holds {len(values)}, and more than {scales.settling} are needed at "
                f"one every {step:g} s; give half a day more"
            )
        stream = self.stream(step)
        for value in values[:-1]:
            stream.judge(value)
        return self.said(stream.judge(values[-1]))

    def said(self, judged: Judgement) -> dict[str, JsonValue]:
        """Return the answer that a judgement is."""
        return {
            "score": judged.score,
            "anomaly": judged.score >= self.threshold,
            "likelihood": judged.likelihood,
            "expected": judged.expected,
            "low": judged.low,
            "high": judged.high,
        }


def numbers_of(row: Row, number: int) -> tuple[list[float], float]:
    """Read ``values`` and ``step_seconds`` of a row.

    Raises:
        DataError: If one is missing or of a wrong kind.
    """
    for name in ("values", "step_seconds"):
        if name not in row:
            raise DataError(f"row {number}: {name!r} is missing; give values and step_seconds")
    values, step = row["values"], row["step_seconds"]
    if not isinstance(values, list) or len(values) > MOST_VALUES:
        raise DataError(f"row {number}: 'values' must be a list of at most {MOST_VALUES} numbers")
    read: list[float] = []
    for place, value in enumerate(values):
        if not _is_number(value):
            raise DataError(f"row {number}: 'values' holds {value!r} at place {place}; give finite numbers")
        read.append(float(value))
    if not _is_number(step) or not LEAST_STEP <= step <= MOST_STEP:
        wanted = f"give a number from {LEAST_STEP:g} to {MOST_STEP:g}"
        raise DataError(f"row {number}: 'step_seconds' is {step!r}; {wanted}")
    return read, float(step)


def _is_number(value: JsonValue) -> TypeGuard[int | float]:
    return finite(value) is not None
