"""Learns, without labels, what the next value of a metric is like, so that surprises stand out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.anomaly import KIND, AnomalyPredictor
from watchkeeper.tools.predictors.artefact import Manifest, write_manifest
from watchkeeper.tools.predictors.forecaster import CALIBRATION, CLIPPED, WIDTH, Calibration, Context
from watchkeeper.tools.predictors.series import Numbers, Series, SeriesFormat, digest_of, read_folder
from watchkeeper.tools.predictors.streams import Scales
from watchkeeper.tools.training.interface import DataSummary, Evaluation, Trainer, TrainingRun

LEAST_HELD_OUT = 20  # rows, over all series: fewer say nothing about rare errors
DAY_SECONDS = 86400.0
CHECKED = 500  # rows of examples that are made between two looks at whether the run is to end


class MetricAnomalyParameters(SeriesFormat):
    """How series are read, and how the network learns.

    Attributes:
        threshold: Score from which on a point is an anomaly.
        hidden: Width of the network's two hidden layers.
        epochs: Times that all rows are learned from.
        batch: Rows of a step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        dropout: Share of the first layer's values that is left out while learning.
        held_out: Last share of each series that errors are calibrated on.
    """

    threshold: float = Field(default=0.1, gt=0, lt=1)
    hidden: int = Field(default=64, ge=4, le=1024)
    epochs: int = Field(default=10, ge=1, le=1000)
    batch: int = Field(default=256, ge=8)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    weight_decay: float = Field(default=1e-2, ge=0, le=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    held_out: float = Field(default=0.2, gt=0, le=0.5)


class MetricAnomalyTrainer(Trainer[MetricAnomalyParameters]):
    """Trains one forecaster on all series together.

    What it learns from are shapes: the last points, the hours of the last day, and yesterday at this time, in
    standard deviations of that day. It forecasts the next point with a spread (a Laplace distribution, by its
    negative log-likelihood), and how much larger errors are on rows that were held out is kept beside it.
    """

    name = "metric-anomaly"
    summary = "what the next value of a metric is like, so that surprises stand out (no labels)"
    kind = KIND
    promises = False
    parameters_type = MetricAnomalyParameters

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now

    def inspect(self, data: Path, parameters: MetricAnomalyParameters) -> DataSummary:
        """Look the series over before anything is trained.

        Raises:
            DataError: With file, line, value, and what to do.
        """
        series = _usable(data, parameters)
        rows = sum(len(s.values) - Scales.of_step(s.step_seconds).settling for s in series)
        return DataSummary(
            sha256=digest_of(data),
            rows=rows,
            columns={parameters.time_column: "time", parameters.value_column: "number"}
            | dict.fromkeys(parameters.group_columns, "text"),
            notes=(f"{len(series)} series; the first half day of each is only looked back at",),
        )

    def train(self, run: TrainingRun, parameters: MetricAnomalyParameters) -> None:
        """Learn, and leave a predictor in the run's folder.

        Raises:
            DataError: As `inspect` does.
            DivergedError: If the numbers stop being numbers.
            JobCancelledError: If the run was cancelled.
        """
        from watchkeeper.tools.training.forecasting import Learner, threads

        sha256 = digest_of(run.data)
        series = _usable(run.data, parameters)
        learned, held = _examples(series, parameters.held_out, run.check)
        with threads(run.threads):
            learner = Learner(
                hidden=parameters.hidden,
                batch=parameters.batch,
                learning_rate=parameters.learning_rate,
                weight_decay=parameters.weight_decay,
                dropout=parameters.dropout,
                seed=run.seed,
            )
            begin = learner.restore(run.checkpoint) if run.checkpoint else 0
            for epoch in range(begin, parameters.epochs):
                loss = learner.learn(learned, epoch, run.check)
                run.metric(epoch + 1, loss=loss, held_out_loss=learner.loss_of(held))
                run.save(epoch + 1, partial(learner.save, done=epoch + 1))
                run.progress((epoch + 1) / parameters.epochs, f"epoch {epoch + 1} of {parameters.epochs}")
            learner.write(run.artefacts)
            calibration = Calibration.of(learner.errors_of(held))
        (run.artefacts / CALIBRATION).write_text(calibration.model_dump_json() + "\n", encoding="utf-8")
        write_manifest(
            run.artefacts,
            Manifest(
                kind=KIND,
                trainer=self.name,
                created_at=self._now(),
                parameters=parameters.model_dump(mode="json"),
                seed=run.seed,
                data_sha256=sha256,
                rows=len(learned.wanted),
                groups=parameters.group_columns,
                versions={name: version(name) for name in ("numpy", "torch")},
            ),
        )

    def evaluate(self, predictor: Path, data: Path, parameters: MetricAnomalyParameters) -> Evaluation:
        """Measure forecasts on other series, beside the forecast that nothing changes.

        Metrics: ``skill`` is 1 minus the mean absolute error over that of the last value (higher is better),
        ``inside`` the share of points inside of the 98 % interval, ``alarms_a_day`` those of the threshold.
        The outcome of a point is 1 minus its absolute error over the mean one of the last value in its
        series, so that the mean outcome is the skill. (By coverage the widest intervals would win.)

        Raises:
            DataError: If the data cannot be read.
            ArtefactError: If the folder holds no predictor of anomalies.
        """
        opened = AnomalyPredictor.load(predictor)
        measured = [(s, _measure(opened, s)) for s in _usable(data, parameters)]
        groups: dict[str, dict[str, dict[str, float]]] = {}
        for column in parameters.group_columns:
            values = sorted({s.groups[column] for s, _ in measured})
            groups[column] = {
                value: _metrics([m for s, m in measured if s.groups[column] == value]) for value in values
            }
        return Evaluation(
            primary="skill",
            metrics=_metrics([m for _, m in measured]),
            groups=groups,
            rows=sum(len(m.errors) for _, m in measured),
            outcomes=tuple(float(value) for _, m in measured for value in m.skills),
        )


@dataclass(frozen=True, slots=True)
class Examples:
    """What a forecaster sees and what it should have said, in standard deviations of a day."""

    seen: Numbers
    wanted: Numbers


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a predictor said of one series: errors, those of the last value, and what came of each point."""

    errors: Numbers
    naive: Numbers
    inside: NDArray[np.bool_]
    alarms: int
    days: float

    @property
    def skills(self) -> Numbers:
        """How much better each point was forecast than by the last value on average; none without change."""
        usual = self.naive.mean()
        return 1.0 - self.errors / usual if usual > 0 else np.array([])


def _usable(data: Path, parameters: MetricAnomalyParameters) -> list[Series]:
    """Read all series; refuse those that are no longer than what is only looked back at."""
    series = read_folder(data, parameters)
    for one in series:
        if one.step_seconds <= 0:
            raise DataError(f"{one.name}: most of its points have one and the same time; mend its times")
        settling = Scales.of_step(one.step_seconds).settling
        least = settling + settling // 4
        if len(one.values) < least:
            raise DataError(
                f"{one.name}: {len(one.values)} rows, and at least {least} are needed at one every "
                f"{one.step_seconds:g} s; measure for a day or more"
            )
    return series


def _examples(
    series: Sequence[Series], held_out: float, check: Callable[[], None]
) -> tuple[Examples, Examples]:
    """Cut series into examples; the last share of each is held out."""
    parts: tuple[list[Examples], list[Examples]] = ([], [])
    for one in series:
        scales = Scales.of_step(one.step_seconds)
        context = Context(scales)
        seen = np.zeros((len(one.values), WIDTH))
        wanted = np.zeros(len(one.values))
        for row, value in enumerate(one.values.tolist()):
            if row % CHECKED == 0:
                check()
            if row >= scales.settling:
                seen[row], level, unit = context.view()
                wanted[row] = (value - level) / unit
            context.push(value)
        cut = len(wanted) - round(held_out * (len(wanted) - scales.settling))
        parts[0].append(Examples(seen[scales.settling : cut], wanted[scales.settling : cut]))
        parts[1].append(Examples(seen[cut:], wanted[cut:]))
    learned, held = (
        Examples(np.concatenate([p.seen for p in part]), np.concatenate([p.wanted for p in part]))
        for part in parts
    )
    if len(held.wanted) < LEAST_HELD_OUT:
        raise DataError(
            f"held_out leaves {len(held.wanted)} rows to calibrate on, and at least {LEAST_HELD_OUT} are "
            "needed; measure longer, or hold more out"
        )
    return Examples(learned.seen, np.clip(learned.wanted, -CLIPPED, CLIPPED)), held


def _measure(opened: AnomalyPredictor, series: Series) -> _Measured:
    """Let a predictor judge one series, point by point."""
    stream = opened.stream(series.step_seconds)
    errors: list[float] = []
    naive: list[float] = []
    inside: list[bool] = []
    alarms = 0
    for row, value in enumerate(series.values.tolist()):
        judged = stream.judge(value)
        alarms += judged.score >= opened.threshold
        if judged.expected is not None and judged.low is not None and judged.high is not None:
            errors.append(abs(value - judged.expected))
            naive.append(abs(value - series.values[row - 1]))
            inside.append(judged.low <= value <= judged.high)
    days = len(errors) * series.step_seconds / DAY_SECONDS
    return _Measured(np.array(errors), np.array(naive), np.array(inside), alarms, days)


def _metrics(measured: Sequence[_Measured]) -> dict[str, float]:
    """Join what was measured; a series counts by its number of points, not by the size of its values."""
    skills = np.concatenate([m.skills for m in measured])
    return {
        "skill": float(skills.mean()) if len(skills) else 0.0,
        "inside": float(np.concatenate([m.inside for m in measured]).mean()),
        "alarms_a_day": sum(m.alarms for m in measured) / sum(m.days for m in measured),
    }
