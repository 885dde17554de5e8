"""Learns how disks fill: which trend to follow for each horizon, and how wrong that usually is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.artefact import Manifest, write_manifest
from watchkeeper.tools.predictors.disk_forecast import (
    KIND,
    LEAST_STEPS,
    MODEL,
    DiskForecastPredictor,
    DiskModel,
)
from watchkeeper.tools.predictors.growth import (
    HORIZONS,
    HOUR_SECONDS,
    LEVELS,
    LINE,
    TRENDS,
    History,
    HorizonModel,
    Trend,
    outlook_of,
    resampled,
)
from watchkeeper.tools.predictors.series import Numbers, Series, SeriesFormat, digest_of, read_folder
from watchkeeper.tools.training.interface import DataSummary, Evaluation, Trainer, TrainingRun

STATE = "horizons.json"
LEAST_ORIGINS = 20
_ROUNDED = 1e-3  # share by which a value may be above full
_LEAST_USED = 0.02  # share of full that the fullest disk must have reached
OUTLOOKS = 30  # of a series, at most, that are evaluated: they overlap


class DiskForecastParameters(SeriesFormat):
    """How series are read, and what is forecast.

    Attributes:
        full: The value at which a disk is full, e.g. 100 for percent.
        horizon_hours: How far ahead is looked.
        held_out: Last share of each series that intervals are calibrated on.
    """

    full: float = Field(default=100.0, gt=0)
    horizon_hours: float = Field(default=168.0, ge=1, le=24 * 365)
    held_out: float = Field(default=0.3, gt=0, le=0.7)


class _State(BaseModel):
    """Horizons that are done: a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizons: tuple[HorizonModel, ...] = ()
    line: tuple[HorizonModel, ...] = ()


class DiskForecastTrainer(Trainer[DiskForecastParameters]):
    """Weighs damped trends for each horizon, and calibrates intervals on later rows (split conformal).

    Intervals follow Lei et al., "Distribution-Free Predictive Inference for Regression", 2018: quantiles of
    the errors on rows that were held out, here in units of the series' own usual change. Rows of a series
    depend on each other, so coverage is not guaranteed; `evaluate` measures it.
    """

    name = "disk-forecast"
    summary = "when a disk will be full, with intervals"
    kind = KIND
    promises = False
    parameters_type = DiskForecastParameters

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now

    def inspect(self, data: Path, parameters: DiskForecastParameters) -> DataSummary:
        """Look the series over before anything is trained.

        Raises:
            DataError: With file, line, value, and what to do.
        """
        series = read_folder(data, parameters)
        found = self._summary(data, series, parameters)
        step = _step(series)
        histories = _histories(series, step, parameters)
        for horizon in _horizons(parameters, step):
            _moments(histories, horizon, step, parameters)
        return found

    def look_over(self, data: Path, parameters: DiskForecastParameters) -> DataSummary:
        """Look series over on which forecasts are to be scored; raises as `inspect` does."""
        return self._summary(data, read_folder(data, parameters), parameters)

    @staticmethod
    def _summary(data: Path, series: Sequence[Series], parameters: DiskForecastParameters) -> DataSummary:
        _check_unit(series, parameters.full)
        step = _step(series)
        steps = sum(len(history.values) for history in _histories(series, step, parameters))
        return DataSummary(
            sha256=digest_of(data),
            rows=sum(len(s.values) for s in series),
            columns={parameters.time_column: "time", parameters.value_column: "number"}
            | dict.fromkeys(parameters.group_columns, "text"),
            notes=(f"{len(series)} series, {steps} steps of {step / HOUR_SECONDS:g} h",),
        )

    def train(self, run: TrainingRun, parameters: DiskForecastParameters) -> None:
        """Learn, and leave a predictor in the run's folder; a checkpoint is kept after each horizon.

        Raises:
            DataError: As `inspect` does.
            JobCancelledError: If the run was cancelled.
        """
        sha256 = digest_of(run.data)
        series = read_folder(run.data, parameters)
        step = _step(series)
        histories = _histories(series, step, parameters)
        state = _State()
        if run.checkpoint is not None:
            state = _State.model_validate_json((run.checkpoint / STATE).read_bytes())
        horizons = _horizons(parameters, step)
        for number, steps in enumerate(horizons[len(state.horizons) :], start=len(state.horizons) + 1):
            run.check()
            moments = _moments(histories, steps, step, parameters)
            made, line = (
                _learned(moments, steps, TRENDS, run.check),
                _learned(moments, steps, (LINE,), run.check),
            )
            state = _State(horizons=(*state.horizons, made), line=(*state.line, line))
            run.metric(number, steps=steps, error=min(made.losses), error_line=line.losses[0])
            run.save(number, partial(_keep, state))
            run.progress(number / len(horizons), f"{steps} steps ahead")
        model = DiskModel(step_seconds=step, full=parameters.full, horizons=state.horizons, line=state.line)
        (run.artefacts / MODEL).write_text(model.model_dump_json(indent=1) + "\n", encoding="utf-8")
        write_manifest(
            run.artefacts,
            Manifest(
                kind=KIND,
                trainer=self.name,
                created_at=self._now(),
                parameters=parameters.model_dump(mode="json"),
                seed=run.seed,
                data_sha256=sha256,
                rows=sum(len(s.values) for s in series),
                groups=parameters.group_columns,
                versions={"numpy": version("numpy")},
            ),
        )

    def evaluate(self, predictor: Path, data: Path, parameters: DiskForecastParameters) -> Evaluation:
        """Measure forecasts on other series, beside the straight line through the last day.

        Metrics: ``skill`` is 1 minus the mean pinball loss over that of the line, which has intervals of the
        same kind (higher is better); ``coverage`` is the share of values inside of the 90 % interval and
        ``coverage_line`` that of the line; ``brier`` and ``brier_line`` are of "full within the horizon".
        The outcome of a forecast is 1 minus its pinball loss over the mean one of "nothing changes", which is
        the same for all versions, as each has a line of its own. (Pinball losses are proper: neither too wide
        nor too narrow intervals gain by them; Gneiting and Raftery, "Strictly Proper Scoring Rules", 2007.)

        Raises:
            DataError: If the data cannot be read.
            ArtefactError: If the folder holds no forecast of disks.
        """
        opened = DiskForecastPredictor.load(predictor)
        measured = [(s, _measure(opened.model, s)) for s in read_folder(data, parameters)]
        if not any(len(m.inside) for _, m in measured):
            raise DataError(f"{data}: no series is long enough to look ahead; measure longer")
        groups: dict[str, dict[str, dict[str, float]]] = {}
        for column in parameters.group_columns:
            values = sorted({s.groups[column] for s, _ in measured})
            groups[column] = {
                value: _metrics([m for s, m in measured if s.groups[column] == value]) for value in values
            }
        losses = [loss for _, m in measured for loss in m.losses]
        usual = float(np.mean([loss for _, m in measured for loss in m.still_losses])) or 1.0
        return Evaluation(
            primary="skill",
            metrics=_metrics([m for _, m in measured]),
            groups=groups,
            rows=len(losses),
            outcomes=tuple(1.0 - loss / usual for loss in losses),
        )


@dataclass(frozen=True, slots=True)
class _Measured:
    """What came of forecasts for one series."""

    losses: list[float]
    line_losses: list[float]
    still_losses: list[float]
    inside: list[bool]
    line_inside: list[bool]
    brier: list[float]
    line_brier: list[float]


def _check_unit(series: Sequence[Series], full: float) -> None:
    """Refuse values in another unit than ``full``: bytes, or shares of 1, beside percent.

    Raises:
        DataError: With a value, and what to set.
    """
    fullest = max(series, key=lambda one: float(one.values.max()))
    most = float(fullest.values.max())
    if most > full * (1 + _ROUNDED):
        raise DataError(
            f"{fullest.name}: {most:g} is above {full:g}, which is said to be full: set `full` to what a "
            "full disk has in the unit of the values"
        )
    if most < full * _LEAST_USED:
        raise DataError(
            f"no value is above {most:g}, and {full:g} is said to be full: are these shares of 1? set `full` "
            "to what a full disk has in the unit of the values"
        )


def _step(series: Sequence[Series]) -> float:
    """Return the length of a step: an hour, or the usual time between points where that is longer."""
    return max(HOUR_SECONDS, *(s.step_seconds for s in series))


def _horizons(parameters: DiskForecastParameters, step: float) -> list[int]:
    """Return the horizons, in steps: the usual ones below the farthest, and that."""
    farthest = max(1, round(parameters.horizon_hours * HOUR_SECONDS / step))
    return [*(steps for steps in HORIZONS if steps < farthest), farthest]


@dataclass(frozen=True, slots=True)
class _Moments:
    """Steps of one series from which is looked ahead by one horizon.

    Attributes:
        history: The series.
        learned: Rows that end before what is held out begins.
        held: Rows that are held out.
    """

    history: History
    learned: NDArray[np.int64]
    held: NDArray[np.int64]


def _histories(series: Sequence[Series], step: float, parameters: DiskForecastParameters) -> list[History]:
    return [History.of(resampled(s.times, s.values, step), parameters.full) for s in series]


def _moments(
    histories: Sequence[History], steps: int, step: float, parameters: DiskForecastParameters
) -> list[_Moments]:
    """Say from which rows is learned, and which are held out.

    Raises:
        DataError: If there are too few.
    """
    found: list[_Moments] = []
    for history in histories:
        rows = np.arange(LEAST_STEPS - 1, len(history.values) - steps)
        # A full disk that stays full is no forecast.
        rows = rows[history.values[rows] < parameters.full]
        cut = round(len(history.values) * (1 - parameters.held_out))
        # What is learned from must not reach into what is held out.
        found.append(_Moments(history, rows[rows + steps < cut], rows[rows >= cut]))
    learned, held = sum(len(m.learned) for m in found), sum(len(m.held) for m in found)
    if min(learned, held) < LEAST_ORIGINS:
        raise DataError(
            f"the series leave {learned} moments to learn from and {held} to calibrate on, {steps} steps of "
            f"{step / HOUR_SECONDS:g} h ahead, and {LEAST_ORIGINS} of each are needed; measure longer, or "
            "look less far ahead (horizon_hours)"
        )
    return [moments for moments in found if len(moments.learned) + len(moments.held)]


def _learned(
    moments: Sequence[_Moments], steps: int, trends: Sequence[Trend], check: Callable[[], None]
) -> HorizonModel:
    """Measure trends on what is learned from, and how wrong the choice among them is on what is held out.

    Quantiles are taken a little farther out, since the errors are those of a sample.
    """
    losses: list[float] = []
    for trend in trends:
        check()
        errors = [m.history.errors(m.history.told(trend, steps), steps)[m.learned] for m in moments]
        losses.append(float(np.abs(np.concatenate(errors)).mean()))
    model = HorizonModel(steps=steps, trends=tuple(trends), losses=tuple(losses))
    held = np.sort(
        np.concatenate([m.history.errors(model.middles(m.history), steps)[m.held] for m in moments])
    )
    count = len(held)
    ranks = [
        max(0, int(np.floor(level * (count + 1))) - 1)
        if level < 0.5
        else min(count - 1, int(np.ceil(level * (count + 1))) - 1)
        for level in LEVELS
    ]
    return model.model_copy(update={"errors": tuple(held[ranks].tolist())})


def _keep(state: _State, folder: Path) -> None:
    (folder / STATE).write_text(state.model_dump_json(), encoding="utf-8")


def _measure(model: DiskModel, series: Series) -> _Measured:
    """Look ahead from moments of one series, spread over it."""
    values = resampled(series.times, series.values, model.step_seconds)
    history = History.of(values, model.full)
    found = _Measured([], [], [], [], [], [], [])
    told = [horizon.quantiles(history) for horizon in model.horizons]
    line_told = [horizon.quantiles(history) for horizon in model.line]
    steps = [horizon.steps for horizon in model.horizons]
    for place, ahead in enumerate(steps):
        for now in _spread(LEAST_STEPS - 1, len(values) - ahead):
            if values[now] >= model.full:
                continue
            later = float(values[now + ahead])
            ours, line = (np.minimum(t[place][now], model.full) for t in (told, line_told))
            found.losses.append(_pinball(ours, later))
            found.line_losses.append(_pinball(line, later))
            found.still_losses.append(_pinball(np.full(len(LEVELS), values[now]), later))
            found.inside.append(bool(ours[0] <= later <= ours[-1]))
            found.line_inside.append(bool(line[0] <= later <= line[-1]))
    for now in _spread(LEAST_STEPS - 1, len(values) - steps[-1]):
        at = float(values[now])
        if at >= model.full:
            continue
        came = float(values[now + 1 : now + steps[-1] + 1].max() >= model.full)
        for kept, quantiles in ((found.brier, told), (found.line_brier, line_told)):
            seen = outlook_of(steps, [q[now] for q in quantiles], at, model.full)
            kept.append((seen.probability - came) ** 2)
    return found


def _spread(first: int, end: int) -> range:
    """Return some rows, spread evenly: neighbours say much the same."""
    return range(first, end, max(1, (end - first) // OUTLOOKS))


def _pinball(told: Numbers, later: float) -> float:
    """Return the mean pinball loss over the levels (Koenker and Bassett, "Regression Quantiles", 1978)."""
    missed = later - told
    levels = np.array(LEVELS)
    return float(np.maximum(levels * missed, (levels - 1) * missed).mean())


def _metrics(measured: Sequence[_Measured]) -> dict[str, float]:
    losses = [loss for m in measured for loss in m.losses]
    line = [loss for m in measured for loss in m.line_losses]
    if not losses:
        return {}
    metrics = {
        "skill": 1.0 - sum(losses) / sum(line) if sum(line) > 0 else 0.0,
        "coverage": float(np.mean([value for m in measured for value in m.inside])),
        "coverage_line": float(np.mean([value for m in measured for value in m.line_inside])),
    }
    brier = [value for m in measured for value in m.brier]
    if brier:
        metrics["brier"] = float(np.mean(brier))
        metrics["brier_line"] = float(np.mean([value for m in measured for value in m.line_brier]))
    return metrics
