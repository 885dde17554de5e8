"""Learns how disks fill: which trend to follow for each horizon, and how wrong that usually is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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
    DAMPINGS,
    HORIZONS,
    HOUR_SECONDS,
    LEAST_CHANGE,
    LEVELS,
    LINE,
    RHYTHM,
    WINDOWS,
    HorizonModel,
    Trend,
    outlook,
    resampled,
)
from watchkeeper.tools.predictors.series import Numbers, Series, SeriesFormat, digest_of, read_folder
from watchkeeper.tools.training.interface import DataSummary, Evaluation, Trainer, TrainingRun

STATE = "horizons.json"
LEAST_ORIGINS = 20
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


@dataclass(frozen=True, slots=True)
class _Origins:
    """Moments of all series from which is looked ahead by one horizon.

    Attributes:
        now: Values at these moments.
        later: Values a horizon later.
        unit: Usual changes at these moments.
        growth: Growth of a step by window and kind.
        held: Which of the moments are held out.
    """

    now: Numbers
    later: Numbers
    unit: Numbers
    growth: dict[tuple[int, bool], Numbers]
    held: np.ndarray[tuple[int], np.dtype[np.bool_]]

    def errors(self, trend: Trend, steps: int) -> Numbers:
        """Return what was too little (above 0) or too much, in usual changes."""
        told = self.now + self.growth[trend.window, trend.middling] * trend.reach(steps)
        return (self.later - told) / self.unit


class DiskForecastTrainer(Trainer[DiskForecastParameters]):
    """Chooses a damped trend for each horizon, and calibrates intervals on later rows (split conformal).

    Intervals follow Lei et al., "Distribution-Free Predictive Inference for Regression", 2018: quantiles of
    the errors on rows that were held out, here in units of the series' own usual change. Rows of a series
    depend on each other, so coverage is not guaranteed; `evaluate` measures it.
    """

    name = "disk-forecast"
    summary = "when a disk will be full, with intervals"
    kind = KIND
    parameters_type = DiskForecastParameters

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now

    def inspect(self, data: Path, parameters: DiskForecastParameters) -> DataSummary:
        """Look the series over before anything is trained.

        Raises:
            DataError: With file, line, value, and what to do.
        """
        series = read_folder(data, parameters)
        step = _step(series)
        cut = [_Steps.of(s, step) for s in series]
        for horizon in _horizons(parameters, step):
            _origins(cut, horizon, step, parameters)
        steps = sum(len(s.values) for s in cut)
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
        series = read_folder(run.data, parameters)
        step = _step(series)
        cut = [_Steps.of(s, step) for s in series]
        state = _State()
        if run.checkpoint is not None:
            state = _State.model_validate_json((run.checkpoint / STATE).read_bytes())
        horizons = _horizons(parameters, step)
        for number, steps in enumerate(horizons[len(state.horizons) :], start=len(state.horizons) + 1):
            run.check()
            origins = _origins(cut, steps, step, parameters)
            chosen, loss = _chosen(origins, steps, run.check)
            state = _State(
                horizons=(*state.horizons, _calibrated(origins, steps, chosen)),
                line=(*state.line, _calibrated(origins, steps, LINE)),
            )
            run.metric(number, error=loss, window=chosen.window, damping=chosen.damping)
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
                data_sha256=digest_of(run.data),
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
        inside = [value for _, m in measured for value in m.inside]
        return Evaluation(
            primary="skill",
            metrics=_metrics([m for _, m in measured]),
            groups=groups,
            rows=len(inside),
            outcomes=tuple(float(value) for value in inside),
        )


@dataclass(frozen=True, slots=True)
class _Measured:
    """What came of forecasts for one series."""

    losses: list[float]
    line_losses: list[float]
    inside: list[bool]
    line_inside: list[bool]
    brier: list[float]
    line_brier: list[float]


def _step(series: Sequence[Series]) -> float:
    """Return the length of a step: an hour, or the usual time between points where that is longer."""
    return max(HOUR_SECONDS, *(s.step_seconds for s in series))


def _horizons(parameters: DiskForecastParameters, step: float) -> list[int]:
    """Return the horizons, in steps: the usual ones below the farthest, and that."""
    farthest = max(1, round(parameters.horizon_hours * HOUR_SECONDS / step))
    return [*(steps for steps in HORIZONS if steps < farthest), farthest]


@dataclass(frozen=True, slots=True)
class _Steps:
    """One series in steps, with its growth and its usual change at each of them."""

    values: Numbers
    growth: dict[tuple[int, bool], Numbers]
    usual: Numbers

    @classmethod
    def of(cls, series: Series, step: float) -> _Steps:
        """Read a series off at even steps."""
        values = resampled(series.times, series.values, step)
        changes = np.diff(values)
        kinds = product(WINDOWS, (False, True))
        return cls(
            values=values,
            growth={(window, middling): _rolling(changes, window, middling) for window, middling in kinds},
            usual=_rolling(np.abs(changes), RHYTHM, middling=False),
        )


def _origins(
    series: Sequence[_Steps], steps: int, step: float, parameters: DiskForecastParameters
) -> _Origins:
    """Collect the moments from which is looked ahead.

    Raises:
        DataError: If there are too few.
    """
    parts: list[_Origins] = []
    for one in series:
        values = one.values
        origins = np.arange(LEAST_STEPS - 1, len(values) - steps)
        if len(origins) == 0:
            continue
        # What is learned from must not reach into what is held out.
        cut = round(len(values) * (1 - parameters.held_out))
        kept = (origins + steps < cut) | (origins >= cut)
        parts.append(
            _Origins(
                now=values[origins][kept],
                later=values[origins + steps][kept],
                unit=np.maximum(one.usual[origins], LEAST_CHANGE * parameters.full)[kept],
                growth={key: value[origins][kept] for key, value in one.growth.items()},
                held=(origins >= cut)[kept],
            )
        )
    joined = _joined(parts)
    held = 0 if joined is None else int(joined.held.sum())
    learned = 0 if joined is None else len(joined.held) - held
    if joined is None or min(held, learned) < LEAST_ORIGINS:
        raise DataError(
            f"the series leave {learned} moments to learn from and {held} to calibrate on, {steps} steps of "
            f"{step / HOUR_SECONDS:g} h ahead, and {LEAST_ORIGINS} of each are needed; measure longer, or "
            "look less far ahead (horizon_hours)"
        )
    return joined


def _joined(parts: Sequence[_Origins]) -> _Origins | None:
    if not parts:
        return None
    return _Origins(
        now=np.concatenate([p.now for p in parts]),
        later=np.concatenate([p.later for p in parts]),
        unit=np.concatenate([p.unit for p in parts]),
        growth={key: np.concatenate([p.growth[key] for p in parts]) for key in parts[0].growth},
        held=np.concatenate([p.held for p in parts]),
    )


def _rolling(changes: Numbers, window: int, middling: bool) -> Numbers:
    """Return the mean or median change of the last steps, for each value; of fewer at the beginning."""
    found = np.zeros(len(changes) + 1)
    first = min(window, len(changes) + 1)
    for place in range(1, first):
        found[place] = np.median(changes[:place]) if middling else changes[:place].mean()
    if len(changes) >= window:
        views = sliding_window_view(changes, window)
        found[window:] = np.median(views, axis=1) if middling else views.mean(axis=1)
    return found


def _chosen(origins: _Origins, steps: int, check: Callable[[], None]) -> tuple[Trend, float]:
    """Choose the trend with the least mean absolute error, on what is not held out."""
    best: tuple[float, Trend] | None = None
    for window, middling, damping in product(WINDOWS, (False, True), DAMPINGS):
        check()
        trend = Trend(window=window, middling=middling, damping=damping)
        loss = float(np.abs(origins.errors(trend, steps)[~origins.held]).mean())
        if best is None or loss < best[0]:
            best = (loss, trend)
    assert best is not None
    return best[1], best[0]


def _calibrated(origins: _Origins, steps: int, trend: Trend) -> HorizonModel:
    """Keep quantiles of the errors on what is held out, a little farther out since they are of a sample."""
    errors = np.sort(origins.errors(trend, steps)[origins.held])
    count = len(errors)
    ranks = [
        max(0, int(np.floor(level * (count + 1))) - 1)
        if level < 0.5
        else min(count - 1, int(np.ceil(level * (count + 1))) - 1)
        for level in LEVELS
    ]
    return HorizonModel(steps=steps, trend=trend, errors=tuple(errors[ranks].tolist()))


def _keep(state: _State, folder: Path) -> None:
    (folder / STATE).write_text(state.model_dump_json(), encoding="utf-8")


def _measure(model: DiskModel, series: Series) -> _Measured:
    """Look ahead from moments of one series, spread over it."""
    values = resampled(series.times, series.values, model.step_seconds)
    found = _Measured([], [], [], [], [], [])
    for horizon, line in zip(model.horizons, model.line, strict=True):
        origins = range(LEAST_STEPS - 1, len(values) - horizon.steps)
        for now in origins[:: max(1, len(origins) // OUTLOOKS)]:
            before, later = values[: now + 1], float(values[now + horizon.steps])
            told, line_told = horizon.quantiles(before, model.full), line.quantiles(before, model.full)
            found.losses.append(_pinball(told, later))
            found.line_losses.append(_pinball(line_told, later))
            found.inside.append(bool(told[0] <= later <= told[-1]))
            found.line_inside.append(bool(line_told[0] <= later <= line_told[-1]))
    farthest = model.horizons[-1].steps
    origins = range(LEAST_STEPS - 1, len(values) - farthest)
    for now in origins[:: max(1, len(origins) // OUTLOOKS)]:
        before = values[: now + 1]
        came = float(values[now + 1 : now + farthest + 1].max() >= model.full)
        found.brier.append((outlook(model.horizons, before, model.full).probability - came) ** 2)
        found.line_brier.append((outlook(model.line, before, model.full).probability - came) ** 2)
    return found


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
