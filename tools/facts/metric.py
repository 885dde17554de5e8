"""Whether a metric stands out from what it usually does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.errors import ArtefactError, CollectError
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.facts.measured import metric_of, read_series
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.local import require_local
from watchkeeper.tools.schema import known, series_of
from watchkeeper.tools.text import shown_path, span_text, visible

LOOKED_BACK = 5000  # points that are judged one after the other, a few seconds' work
STALE_STEPS = 5  # without a point: nothing can be said of now
STALE_SECONDS = 900.0


class MetricAnomalyArguments(Arguments):
    """A series of the inventory."""

    path: Annotated[str, known("metric", description="the file of a series")]


class _Point(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    time: float
    value: float
    score: float
    low: float | None
    high: float | None


class _Raw(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    now: float
    about: str
    step: float
    judged: int
    threshold: float
    points: tuple[_Point, ...]


class MetricAnomalyResult(Result):
    """How the last hour of a series compares with what it usually does.

    Attributes:
        path: File of the series.
        about: What is measured.
        points: Points that were judged, one after the other, each by those before it.
        step_seconds: Usual time between two of them.
        last: When the last one was measured.
        age_seconds: How long ago that was.
        value: The last value.
        anomalies: Points of the last hour that stand out.
        score: That of the point of the last hour that stands out most, from 0 to 1.
        threshold: The score from which on a point stands out.
        at: When that point was measured.
        peak: Its value.
        low: The least value that would have been no surprise there, where the predictor knows.
        high: The greatest one.
    """

    path: str
    about: str
    points: int
    step_seconds: float
    last: datetime
    age_seconds: float
    value: float
    anomalies: int
    score: float
    threshold: float
    at: datetime
    peak: float
    low: float | None
    high: float | None

    @property
    def is_stale(self) -> bool:
        """Whether nothing was measured for so long that nothing can be said of now."""
        return self.age_seconds > max(STALE_SECONDS, STALE_STEPS * self.step_seconds)


class MetricAnomaly(Fact[MetricAnomalyArguments, MetricAnomalyResult]):
    """Let a trained predictor judge a series, point by point."""

    name = "metric.anomaly"
    summary = "whether a metric stands out from what it usually does"
    kinds = frozenset({FindingKind.METRIC_ANOMALY, FindingKind.CUSTOM})
    arguments_type = MetricAnomalyArguments
    result_type = MetricAnomalyResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Ask for each series that has a predictor of anomalies."""
        return [{"path": path} for path in series_of(spec, "anomaly")]

    def collect(self, target: Target, arguments: MetricAnomalyArguments) -> Raw:
        """Read the series and judge it.

        Raises:
            CollectError: If the series or its predictor cannot be read.
        """
        require_local(target, self.name)
        from watchkeeper.tools.predictors.anomaly import AnomalyPredictor
        from watchkeeper.tools.predictors.streams import Scales

        metric = metric_of(target.spec, arguments.path, "anomaly")
        series = read_series(metric)
        try:
            predictor = AnomalyPredictor.load(metric.predictor)
        except ArtefactError as error:
            raise CollectError(str(error)) from error
        if not series.step_seconds > 0:
            raise CollectError(f"{shown_path(arguments.path)}: most points have one and the same time")
        scales = Scales.of_step(series.step_seconds)
        values, times = series.values[-LOOKED_BACK:].tolist(), series.times[-LOOKED_BACK:].tolist()
        if len(values) <= scales.settling:
            raise CollectError(
                f"{shown_path(arguments.path)} holds {len(values)} points, and more than {scales.settling} "
                "are needed: wait until half a day was measured"
            )
        stream = predictor.stream(series.step_seconds)
        judged = [stream.judge(value) for value in values]
        points = [
            _Point(time=at, value=value, score=said.score, low=said.low, high=said.high)
            for at, value, said in list(zip(times, values, judged, strict=True))[-max(1, scales.hour) :]
        ]
        return _Raw(
            now=time.time(),
            about=metric.about,
            step=series.step_seconds,
            judged=len(values),
            threshold=predictor.threshold,
            points=tuple(points),
        ).model_dump()

    def interpret(self, raw: Raw, arguments: MetricAnomalyArguments) -> MetricAnomalyResult:
        """Find the point of the last hour that stands out most."""
        read = _Raw.model_validate(raw)
        last, most = read.points[-1], max(read.points, key=lambda point: point.score)
        return MetricAnomalyResult(
            path=arguments.path,
            about=read.about,
            points=read.judged,
            step_seconds=read.step,
            last=_moment(last.time),
            age_seconds=max(0.0, round(read.now - last.time, 1)),
            value=last.value,
            anomalies=sum(point.score >= read.threshold for point in read.points),
            score=round(most.score, 4),
            threshold=read.threshold,
            at=_moment(most.time),
            peak=most.value,
            low=most.low,
            high=most.high,
        )

    def findings(self, result: MetricAnomalyResult, arguments: MetricAnomalyArguments) -> Iterator[Finding]:
        """Say whether the metric stands out, or is measured no longer."""
        about, path = visible(result.about), shown_path(arguments.path)
        if result.is_stale:
            yield Finding(
                kind=FindingKind.CUSTOM,
                subject=path,
                text=(
                    f"{about} was last measured {span_text(result.age_seconds)} ago: nothing is known of now."
                ),
                severity=Severity.WARNING,
            )
        elif result.anomalies:
            usual = ""
            if result.low is not None and result.high is not None:
                usual = f", where {result.low:.4g} to {result.high:.4g} were to be expected"
            yield Finding(
                kind=FindingKind.METRIC_ANOMALY,
                subject=path,
                text=(
                    f"{about} stands out: {result.peak:.4g} at {result.at:%Y-%m-%d %H:%M} UTC{usual} (score "
                    f"{result.score:.2f} of 1)."
                ),
                severity=Severity.WARNING,
            )

    def describe(self, arguments: MetricAnomalyArguments) -> str:
        """Say of which series."""
        return f"whether {shown_path(arguments.path)} stands out from what it usually does"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
