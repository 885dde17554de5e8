"""Whether a metric stands out from what it usually does."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.errors import CollectError, ToolError
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.facts.measured import AnsweredBy, metric_of, read_series
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.local import require_local
from watchkeeper.tools.schema import known, series_of
from watchkeeper.tools.text import shown_path, span_text, visible

if TYPE_CHECKING:
    from watchkeeper.tools.predictors.streams import Scales, Stream

LOOKED_BACK = 5000  # points that are judged one after the other, a few seconds' work
STALE_STEPS = 5  # without a point: nothing can be said of now
STALE_SECONDS = 900.0
STRETCHES = 12  # of the last hour, or of as many points, that are left out to explain a score
TOLD = 2  # stretches that are told
LEAST_WORTH = 0.1  # of the score: what is worth less did not make it


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


class _Span(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    first: float
    last: float
    worth: float


class _Raw(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    now: float
    about: str
    step: float
    judged: int
    threshold: float
    points: tuple[_Point, ...]
    because: tuple[_Span, ...] = ()
    by: AnsweredBy | None = None


class Stretch(BaseModel):
    """Points that made the score: from when to when they were measured, and what it loses without them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: datetime
    last: datetime
    worth: float


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
        because: The points that made the score, where it stands out; the strongest first.
        by: The version that judged; None of a predictor in a folder.
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
    because: tuple[Stretch, ...] = ()
    by: AnsweredBy | None = None

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
        from watchkeeper.tools.facts.answering import Answer, opened
        from watchkeeper.tools.predictors.anomaly import AnomalyPredictor
        from watchkeeper.tools.predictors.streams import Scales

        metric = metric_of(target.spec, arguments.path, "anomaly")
        series = read_series(metric)
        try:
            asked = opened(metric.predictor, AnomalyPredictor, target.home)
        except ToolError as error:
            raise CollectError(str(error)) from error
        predictor = asked.predictor
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
        early = len(values) - scales.hour - _looked_over(scales)
        judged = [stream.judge(value) for value in values[:early]]
        before = copy.deepcopy(stream)
        judged += [stream.judge(value) for value in values[early:]]
        hour = list(zip(times, values, judged, strict=True))[-scales.hour :]
        points = [
            _Point(time=at, value=value, score=said.score, low=said.low, high=said.high)
            for at, value, said in hour
        ]
        most = max(points, key=lambda point: point.score)
        because: tuple[_Span, ...] = ()
        if most.score >= predictor.threshold:
            end = times.index(most.time, len(times) - len(hour)) + 1
            because = _because(before, times[early:end], values[early:end], scales, most.score)
        asked.record(
            Answer(
                of=(arguments.path, at),
                asked={"series": arguments.path, "value": value, "step_seconds": series.step_seconds},
                said=predictor.said(said),
            )
            for at, value, said in hour
        )
        return _Raw(
            now=time.time(),
            about=metric.about,
            step=series.step_seconds,
            judged=len(values),
            threshold=predictor.threshold,
            points=tuple(points),
            because=because,
            by=asked.by,
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
            because=tuple(
                Stretch(first=_moment(one.first), last=_moment(one.last), worth=round(one.worth, 4))
                for one in read.because
            ),
            by=read.by,
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
            said = [f"score {result.score:.2f} of 1"]
            when = " and ".join(_when(one, result.at) for one in result.because)
            said += [f"made by the points of {when}"] if when else []
            said += [str(result.by)] if result.by else []
            yield Finding(
                kind=FindingKind.METRIC_ANOMALY,
                subject=path,
                text=(
                    f"{about} stands out: {result.peak:.4g} at {result.at:%Y-%m-%d %H:%M} UTC{usual} "
                    f"({'; '.join(said)})."
                ),
                severity=Severity.WARNING,
            )

    def describe(self, arguments: MetricAnomalyArguments) -> str:
        """Say of which series."""
        return f"whether {shown_path(arguments.path)} stands out from what it usually does"


def _looked_over(scales: Scales) -> int:
    """Return how many points up to the one that stands out may have made its score."""
    return max(STRETCHES, scales.hour)


def _because(
    stream: Stream, times: list[float], values: list[float], scales: Scales, score: float
) -> tuple[_Span, ...]:
    """Say which of the points up to the last one made its score.

    Args:
        stream: What has judged all points before these.
        times: Their times.
        values: Their values.
        scales: How many an hour are.
        score: That of the last one.
    """
    import numpy as np

    from watchkeeper.tools.predictors.anomaly import behind

    begin = len(values) - _looked_over(scales)
    for value in values[:begin]:
        stream.judge(value)
    worth = behind(stream, np.array(values[begin:]), width=_looked_over(scales) // STRETCHES)
    return tuple(
        _Span(first=times[begin + one.start], last=times[begin + one.end - 1], worth=one.effect)
        for one in worth[:TOLD]
        if one.effect >= LEAST_WORTH * score
    )


def _when(one: Stretch, at: datetime) -> str:
    """Say when a stretch was measured; with the day where that is another one."""
    ends = [one.first] if one.last == one.first else [one.first, one.last]
    return " to ".join(f"{end:{'%H:%M' if end.date() == at.date() else '%Y-%m-%d %H:%M'}}" for end in ends)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
