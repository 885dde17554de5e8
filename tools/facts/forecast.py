"""When a disk will be full."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

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

LIKELY = 0.5  # probability from which on it is worth acting
SOON_SECONDS = 86400.0
STALE_SECONDS = 6 * 3600.0  # without a point: nothing can be said of now


class DiskForecastArguments(Arguments):
    """A series of the inventory."""

    path: Annotated[str, known("filling", description="the file of the series of a disk")]


class _Raw(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    now: float
    about: str
    last: float
    value: float
    full: float
    horizon: float
    probability: float
    likely: float | None
    earliest: float | None
    latest: float | None
    by: AnsweredBy | None = None


class DiskForecastResult(Result):
    """What is to be expected of a disk; None where it is not full within the horizon.

    Attributes:
        path: File of the series.
        about: Which disk.
        last: When it was measured last.
        age_seconds: How long ago that was.
        used_percent: How full it was then.
        horizon_seconds: How far ahead is looked.
        probability: That it is full within the horizon.
        likely_seconds: Time until it is full as likely as not.
        earliest_seconds: Time until it is full with a probability of 5 %.
        latest_seconds: Time until it is full with a probability of 95 %.
        by: The version that says so; None of a predictor in a folder.
    """

    path: str
    about: str
    last: datetime
    age_seconds: float
    used_percent: float
    horizon_seconds: float
    probability: float
    likely_seconds: float | None
    earliest_seconds: float | None
    latest_seconds: float | None
    by: AnsweredBy | None = None

    @property
    def is_stale(self) -> bool:
        """Whether nothing was measured for so long that nothing can be said of now."""
        return self.age_seconds > STALE_SECONDS


class DiskForecast(Fact[DiskForecastArguments, DiskForecastResult]):
    """Let a trained predictor say when a disk is full."""

    name = "disk.forecast"
    summary = "when a disk will be full"
    kinds = frozenset({FindingKind.FILESYSTEM_FULL, FindingKind.FILESYSTEM_FILLING, FindingKind.CUSTOM})
    arguments_type = DiskForecastArguments
    result_type = DiskForecastResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Ask for each series that has a forecast."""
        return [{"path": path} for path in series_of(spec, "disk-forecast")]

    def collect(self, target: Target, arguments: DiskForecastArguments) -> Raw:
        """Read the series and forecast it.

        Raises:
            CollectError: If the series or its predictor cannot be read.
        """
        require_local(target, self.name)
        from watchkeeper.tools.facts.answering import Answer, opened
        from watchkeeper.tools.predictors.disk_forecast import DiskForecastPredictor

        metric = metric_of(target.spec, arguments.path, "disk-forecast")
        series = read_series(metric)
        try:
            asked = opened(metric.predictor, DiskForecastPredictor, target.home)
            seen = asked.predictor.outlook(series.times, series.values)
        except ToolError as error:
            raise CollectError(f"{shown_path(arguments.path)}: {error}") from error
        predictor = asked.predictor
        step = predictor.model.step_seconds
        last, value = float(series.times[-1]), float(series.values[-1])
        asked.record(
            [
                Answer(
                    of=(arguments.path, last),
                    asked={"series": arguments.path, "value": value, "step_seconds": series.step_seconds},
                    said=predictor.said(seen),
                )
            ]
        )
        return _Raw(
            now=time.time(),
            about=metric.about,
            last=last,
            value=value,
            full=predictor.model.full,
            horizon=predictor.horizon_seconds,
            probability=seen.probability,
            likely=_seconds(seen.likely, step),
            earliest=_seconds(seen.earliest, step),
            latest=_seconds(seen.latest, step),
            by=asked.by,
        ).model_dump()

    def interpret(self, raw: Raw, arguments: DiskForecastArguments) -> DiskForecastResult:
        """Turn times of the series into times from now."""
        read = _Raw.model_validate(raw)
        age = max(0.0, read.now - read.last)

        def left(seconds: float | None) -> float | None:
            return None if seconds is None else round(max(0.0, seconds - age))

        return DiskForecastResult(
            path=arguments.path,
            about=read.about,
            last=datetime.fromtimestamp(read.last, UTC),
            age_seconds=round(age, 1),
            used_percent=round(100 * read.value / read.full, 1),
            horizon_seconds=read.horizon,
            probability=round(read.probability, 3),
            likely_seconds=left(read.likely),
            earliest_seconds=left(read.earliest),
            latest_seconds=left(read.latest),
            by=read.by,
        )

    def findings(
        self,
        result: DiskForecastResult,
        arguments: DiskForecastArguments,  # noqa: ARG002
    ) -> Iterator[Finding]:
        """Say whether the disk will be full, or is measured no longer."""
        about = visible(result.about)
        if result.is_stale:
            yield Finding(
                kind=FindingKind.CUSTOM,
                subject=about,
                text=(
                    f"{about} was last measured {span_text(result.age_seconds)} ago: nothing is known of now."
                ),
                severity=Severity.WARNING,
            )
        elif result.used_percent >= 100:
            yield Finding(
                kind=FindingKind.FILESYSTEM_FULL,
                subject=about,
                text=f"{about} is full, by the series that is measured of it.",
                severity=Severity.CRITICAL,
            )
        elif result.probability >= LIKELY and result.likely_seconds is not None:
            horizon = span_text(result.horizon_seconds)
            earliest, latest = span_text(result.earliest_seconds or 0), result.latest_seconds
            until = f"beyond {horizon}" if latest is None else span_text(latest)
            soon = result.likely_seconds <= SOON_SECONDS
            by = f" ({result.by})" if result.by else ""
            yield Finding(
                kind=FindingKind.FILESYSTEM_FILLING,
                subject=about,
                text=(
                    f"{about} is {result.used_percent:.0f} % full and likely to be full in "
                    f"{span_text(result.likely_seconds)} ({earliest} to {until}); "
                    f"the probability within {horizon} is {100 * result.probability:.0f} %{by}."
                ),
                severity=Severity.CRITICAL if soon else Severity.WARNING,
            )

    def describe(self, arguments: DiskForecastArguments) -> str:
        """Say of which series."""
        return f"when the disk of {shown_path(arguments.path)} will be full"


def _seconds(steps: float | None, step: float) -> float | None:
    return None if steps is None else steps * step
