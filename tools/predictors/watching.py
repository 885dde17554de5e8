"""How a predictor does since it answers: what it is asked, answers and takes, and whether labels agree."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.drift import Adwin, DriftDetector, streams_are_watched
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.psi import ColumnDrift, Reference
from watchkeeper.tools.predictors.recording import FIRST, Predictions, Recorded
from watchkeeper.tools.predictors.rows import finite, number_of
from watchkeeper.tools.predictors.served import Failures, Latency, failures_of, latency_of
from watchkeeper.tools.versions.bootstrap import interval_of_mean

if TYPE_CHECKING:
    from watchkeeper.tools.versions.records import Version

LOOKED_AT = 5000
"""The newest predictions of a version that are looked at."""

LEAST_ROWS = 50
"""Rows below which nothing is said of a shift."""

LEAST_LABELS = 30
"""Labels below which nothing is said of the quality."""

LEAST_FALL = 0.05
"""How far the share of right answers must fall where their stream changes; less hardly matters."""


class LiveQuality(BaseModel):
    """How often answers agree with the labels that arrived.

    Attributes:
        labels: How many arrived.
        share: Share of answers that agree.
        low: Lower end of its 95 % interval.
        high: Upper end.
        held_out: Share of right answers on held-out data; None where it is not known.
        held_out_low: Lower end of its 95 % interval; None where it is taken as exact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: int
    share: float
    low: float
    high: float
    held_out: float | None = None
    held_out_low: float | None = None

    @property
    def worse(self) -> bool:
        """Whether it is worse than it was on held-out data, and no chance on either side."""
        if self.labels < LEAST_LABELS or self.held_out is None:
            return False
        least = self.held_out if self.held_out_low is None else self.held_out_low
        return is_below((self.share, self.high), (self.held_out, least))


def is_below(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether the interval of the difference of two shares (Newcombe 1998, method 10) lies below zero.

    Args:
        first: The one share, and the upper end of its interval.
        second: The other share, and the lower end of its interval.
    """
    return second[0] - first[0] > math.hypot(first[1] - first[0], second[0] - second[1])


class Fall(BaseModel):
    """A change in the stream of labelled answers, since which fewer of them are right.

    Attributes:
        at: When the first answer behind it was made.
        labels: Labelled answers behind it.
        before: Share of right answers before it.
        share: Share of right ones behind it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    labels: int
    before: float
    share: float


class DriftReport(BaseModel):
    """How a version does since it answers.

    Attributes:
        predictor: Its name.
        version: Its number.
        rows: Predictions that were looked at.
        since: When the first of them was made.
        until: When the last was.
        reference_rows: Rows that they were compared with; 0 where there are too few.
        columns: What was asked, by column.
        answers: What was answered, by column.
        quality: How often labels agree; None where no label arrived.
        fall: Since when labels agree less often than before; None where they do not.
        latency: How long answers take; None where too few were measured.
        failures: At how many rows it fails; None where nobody looked.
        signals: What is not as it was, each in a few words: ``rows:load``, ``answers:score``, ``quality``,
            ``stream:quality``, ``latency``, ``errors``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictor: str
    version: int
    rows: int
    since: datetime | None = None
    until: datetime | None = None
    reference_rows: int = 0
    columns: dict[str, ColumnDrift] = {}
    answers: dict[str, ColumnDrift] = {}
    quality: LiveQuality | None = None
    fall: Fall | None = None
    latency: Latency | None = None
    failures: Failures | None = None
    signals: tuple[str, ...] = ()


class Change(BaseModel):
    """Where a stream changed: what was watched, at which prediction, and when that was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: str
    prediction: int
    at: datetime


def look(
    kept: Predictions,
    version: Version,
    *,
    last: int = LOOKED_AT,
    reference: Sequence[Row] = (),
    column: str | None = None,
    tolerance: float = 0.0,
) -> DriftReport:
    """Compare what a version was asked and answered lately with its first answers, as they are kept.

    Where river is installed, the stream of labelled answers is watched, too.

    Args:
        kept: Where they are kept.
        version: The version.
        last: Predictions that are looked at, the newest.
        reference: As `watch` takes it.
        column: Column of the answers that labels are held against; by default the one on the version's card.
        tolerance: How far a number may be off and still agree.

    Raises:
        DataError: If it is not known what labels are held against.
        RecordingError: If they cannot be read.
    """
    first, newest = kept.ends(version.name, version.number, last=last)
    before, _ = parted(first, newest)
    return watch(
        version.name,
        version.number,
        newest,
        first=first,
        failures=failures_of(kept, version.name, version.number, before),
        reference=reference,
        column=column or version.record.notes.label_column or None,
        tolerance=tolerance,
        held_out=version.promised,
        held_out_low=version.promised_low(0.95),
        streams=streams_are_watched(),
    )


def watch(
    predictor: str,
    version: int,
    predictions: Sequence[Recorded],
    *,
    first: Sequence[Recorded] = (),
    failures: Failures | None = None,
    reference: Sequence[Row] = (),
    column: str | None = None,
    tolerance: float = 0.0,
    held_out: float | None = None,
    held_out_low: float | None = None,
    streams: bool = False,
) -> DriftReport:
    """Compare what a version was asked and answered lately with what it was before.

    Args:
        predictor: Its name.
        version: Its number.
        predictions: The newest of this version, the oldest first.
        first: Its first ones, as far as they are not among these.
        failures: At how many rows it fails, where somebody looked.
        reference: Rows to compare with what was asked; by default the first that it was asked. Answers are
            always compared with its first ones.
        column: Column of the answers that labels are held against; by default the only one, or ``label``.
        tolerance: How far a number may be off and still agree.
        held_out: Share of right answers on held-out data.
        held_out_low: Lower end of its 95 % interval; None where it is taken as exact.
        streams: Whether the stream of labelled answers is watched, too.

    Raises:
        DataError: If it is not known what labels are held against.
        MissingExtraError: If streams are to be watched, and river is not installed.
    """
    labelled = [one for one in predictions if one.label is not None]
    quality = live_quality(
        labelled, column=column, tolerance=tolerance, held_out=held_out, held_out_low=held_out_low
    )
    before, recent = parted(first, predictions)
    columns: dict[str, ColumnDrift] = {}
    answers: dict[str, ColumnDrift] = {}
    compared = 0
    if reference and len(predictions) >= LEAST_ROWS:
        columns = Reference.of(reference).compare([one.asked for one in predictions])
        compared = len(reference)
    if min(len(before), len(recent)) >= LEAST_ROWS:
        answers = Reference.of([one.answer for one in before]).compare([one.answer for one in recent])
        if not reference:
            columns = Reference.of([one.asked for one in before]).compare([one.asked for one in recent])
            compared = len(before)
    signals = [f"rows:{name}" for name, drift in columns.items() if drift.shifted]
    signals += [f"answers:{name}" for name, drift in answers.items() if drift.shifted]
    if quality is not None and quality.worse:
        signals.append("quality")
    fall = None
    if streams:
        stream = [one for one in (*first, *predictions) if one.label is not None]
        fall = fallen(stream, column=column, tolerance=tolerance)
    if fall is not None:
        signals.append("stream:quality")
    latency = latency_of(before, recent)
    if latency is not None and latency.slower:
        signals.append("latency")
    if failures is not None and failures.many:
        signals.append("errors")
    return DriftReport(
        predictor=predictor,
        version=version,
        rows=len(predictions),
        since=predictions[0].at if predictions else None,
        until=predictions[-1].at if predictions else None,
        reference_rows=compared,
        columns=columns,
        answers=answers,
        quality=quality,
        fall=fall,
        latency=latency,
        failures=failures,
        signals=tuple(signals),
    )


def parted(
    first: Sequence[Recorded], newest: Sequence[Recorded]
) -> tuple[Sequence[Recorded], Sequence[Recorded]]:
    """Return what later predictions are compared with, and these: of few, the first half is the reference."""
    taken = max(0, min(FIRST, (len(first) + len(newest)) // 2) - len(first))
    return [*first, *newest[:taken]], newest[taken:]


def live_quality(
    labelled: Sequence[Recorded],
    *,
    column: str | None = None,
    tolerance: float = 0.0,
    held_out: float | None = None,
    held_out_low: float | None = None,
) -> LiveQuality | None:
    """Return how often answers agree with their labels; None without labels.

    Raises:
        DataError: If it is not known what labels are held against.
    """
    outcomes = [outcome_of(one, column=column, tolerance=tolerance) for one in labelled]
    if not outcomes:
        return None
    low, high = interval_of_mean(outcomes)
    return LiveQuality(
        labels=len(outcomes),
        share=sum(outcomes) / len(outcomes),
        low=low,
        high=high,
        held_out=held_out,
        held_out_low=held_out_low,
    )


def fallen(labelled: Sequence[Recorded], *, column: str | None = None, tolerance: float = 0.0) -> Fall | None:
    """Return since when fewer answers are right than before, as ADWIN sees it; None where they are not.

    Args:
        labelled: The oldest first.
        column: Column of the answers that labels are held against.
        tolerance: How far a number may be off and still agree.

    Raises:
        DataError: If it is not known what labels are held against.
        MissingExtraError: If river is not installed.
    """
    if len(labelled) < LEAST_LABELS:
        return None
    outcomes = [outcome_of(one, column=column, tolerance=tolerance) for one in labelled]
    detector = Adwin()
    for outcome in outcomes:
        detector.update(outcome)
    since = len(outcomes) - detector.window
    if since == 0:
        return None
    before, share = fmean(outcomes[:since]), fmean(outcomes[since:])
    if before - share < LEAST_FALL:
        return None
    return Fall(at=labelled[since].at, labels=detector.window, before=before, share=share)


def outcome_of(one: Recorded, *, column: str | None = None, tolerance: float = 0.0) -> float:
    """Return 1.0 where an answer agrees with its label, else 0.0.

    Raises:
        DataError: If it is not known what the label is held against.
    """
    name = _label_column(one) if column is None else column
    if name is None:
        raise DataError(
            f"answers of {one.predictor!r} have the columns {', '.join(one.answer)}: say with --column "
            "which one labels are held against"
        )
    if name not in one.answer:
        raise DataError(
            f"answers of {one.predictor!r} have no column {name!r}; there are: {', '.join(one.answer)}"
        )
    return float(_agree(one.answer[name], one.label, tolerance))


def changes(
    predictions: Sequence[Recorded],
    detector: Callable[[], DriftDetector],
    *,
    column: str | None = None,
) -> tuple[Change, ...]:
    """Give the numbers that were answered, and the outcomes, to a detector of each, one after the other.

    Args:
        predictions: The oldest first.
        detector: Makes one.
        column: Column of the answers that labels are held against; outcomes are left out where it is not
            known.
    """
    detectors: dict[str, DriftDetector] = {}
    found: list[Change] = []
    for number, one in enumerate(predictions):
        values = {
            f"answers:{name}": told
            for name, value in one.answer.items()
            if (told := finite(int(value) if isinstance(value, bool) else value)) is not None
        }
        if one.label is not None and (column or _label_column(one)) is not None:
            values["quality"] = outcome_of(one, column=column)
        for stream, value in values.items():
            if stream not in detectors:
                detectors[stream] = detector()
            if detectors[stream].update(value):
                found.append(Change(stream=stream, prediction=number, at=one.at))
    return tuple(found)


def _label_column(one: Recorded) -> str | None:
    """Return the column of an answer that labels are held against where nobody says which."""
    if len(one.answer) == 1:
        return next(iter(one.answer))
    return "label" if "label" in one.answer else None


def _agree(answer: JsonValue, label: JsonValue, tolerance: float) -> bool:
    # Classes are texts, while a file of labels may hold them as numbers or booleans.
    if isinstance(answer, str) != isinstance(label, str):
        text, other = (answer, label) if isinstance(answer, str) else (label, answer)
        if isinstance(other, bool):
            return str(text).strip().casefold() == json.dumps(other)
        number = number_of(str(text))
        if number is None:
            return text == json.dumps(other)
        answer, label = number, other
    numbers = [v for v in (answer, label) if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == 2:
        try:
            return abs(numbers[0] - numbers[1]) <= tolerance
        except OverflowError:
            return False
    return answer == label
