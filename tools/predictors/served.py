"""How a version is served: how long its answers take, and at how many rows it fails, now and at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import quantiles

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.predictors.intervals import wilson
from watchkeeper.tools.predictors.recording import ANSWERING, Predictions, Recorded, Tally

RECENT = 200
"""The newest batches of answers, and the newest rows, by which it is told how a version is served."""

LEAST_BATCHES = 10
"""Batches below which nothing is said of their times: what is computed together is slow together."""

LEAST_ASKED = 50
"""Rows below which nothing is said of failures."""

MOST_TIMES = 2.0
"""How many times as long as 95 % of the first answers one may take."""

LEAST_SECONDS = 0.05
"""Seconds up to which nothing is called slow."""

MOST_SLOW = 0.05
"""Share of answers that may take longer than that, as one in twenty of the first did."""

LEAST_RISE = 0.05
"""How far the share of rows at which a version fails must rise; less hardly matters."""

MOST_FAILED = 0.2
"""Share of rows at which no version may fail, however many it was at first."""

_CONFIDENCE = 0.99


class Latency(BaseModel):
    """How long clients wait for answers, from the request until it is answered; of each batch the slowest.

    Attributes:
        before: Seconds that 95 % of the first took at most.
        now: The same of the newest.
        batches: How many are the newest.
        slow: How many of these took too long: more than twice as long as 95 % of the first, also for each of
            the rows that were asked together, and more than 50 ms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: float
    now: float
    batches: int
    slow: int

    @property
    def slower(self) -> bool:
        """Whether more take too long than may, and no chance."""
        return wilson(self.slow, self.batches, _CONFIDENCE)[0] > MOST_SLOW


class Failures(BaseModel):
    """At how many rows a version fails: of mistakes in a row nobody knows whose they are, so they count.

    Attributes:
        rows: The newest rows that it was asked.
        failed: At how many of these it failed.
        first_rows: The first rows that it was asked; 0 where that is not known.
        first_failed: At how many of these it failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = 0
    failed: int = 0
    first_rows: int = 0
    first_failed: int = 0

    @property
    def share(self) -> float:
        """Share of the newest rows at which it failed."""
        return self.failed / self.rows if self.rows else 0.0

    @property
    def many(self) -> bool:
        """Whether these are more than at first, or more than any version may, and no chance."""
        if self.rows < LEAST_ASKED:
            return False
        low, _ = wilson(self.failed, self.rows, _CONFIDENCE)
        if low > MOST_FAILED:
            return True
        if self.first_rows < LEAST_ASKED:
            return False
        _, high = wilson(self.first_failed, self.first_rows, _CONFIDENCE)
        return low > high and self.share - self.first_failed / self.first_rows >= LEAST_RISE


def latency_of(before: Sequence[Recorded], recent: Sequence[Recorded]) -> Latency | None:
    """Return how long answers took at first and take now; None where too few batches were measured."""
    first, newest = batch_times(before), batch_times(recent)[-RECENT:]
    if min(len(first), len(newest)) < LEAST_BATCHES:
        return None
    usual = most_of([seconds for _, seconds, _ in first])
    # Who asks more rows at once waits longer, and nothing got slower.
    usual_row = most_of([seconds / rows for _, seconds, rows in first])
    limit = max(MOST_TIMES * usual, LEAST_SECONDS)
    slow = sum(seconds > limit and seconds / rows > MOST_TIMES * usual_row for _, seconds, rows in newest)
    now = most_of([seconds for _, seconds, _ in newest])
    return Latency(before=usual, now=now, batches=len(newest), slow=slow)


def batch_times(predictions: Sequence[Recorded]) -> list[tuple[datetime, float, int]]:
    """Return when each batch that was measured was answered, and the seconds and rows of its slowest request.

    Args:
        predictions: The oldest first; those of a batch were made at the same time.
    """
    batches: dict[datetime, Counter[float]] = {}
    for one in predictions:
        if one.seconds is not None:
            batches.setdefault(one.at, Counter())[one.seconds] += 1
    return [(at, max(times), times[max(times)]) for at, times in batches.items()]


def most_of(seconds: Sequence[float]) -> float:
    """Return what 95 % of times are at most; there are at least two."""
    return quantiles(seconds, n=20, method="inclusive")[-1]


def failures_of(kept: Predictions, predictor: str, version: int, first: Sequence[Recorded] = ()) -> Failures:
    """Return at how many rows a version fails now, and did while its first answers were made.

    Rows are counted by the minute, so both are whole minutes, and none is in both.

    Args:
        kept: Where they were counted.
        predictor: The predictor.
        version: Its version.
        first: The first answers, with which later ones are compared.

    Raises:
        RecordingError: If they cannot be read.
    """
    asked = kept.tally(predictor, version=version, roles=ANSWERING).rows
    # Of few, the first half is what they are compared with.
    wanted = min(RECENT, max(LEAST_ASKED, asked // 2))
    answered = failed = 0
    since: datetime | None = None
    for minute, tally in kept.minutes(predictor, version=version, roles=ANSWERING, last=RECENT)[::-1]:
        if answered + failed >= wanted:
            break
        answered, failed, since = answered + tally.answered, failed + tally.failed, minute
    before = Tally(0, 0)
    if since is not None and first:
        until = min(since, first[-1].at + timedelta(minutes=1))
        before = kept.tally(predictor, version=version, roles=ANSWERING, until=until)
    return Failures(rows=answered + failed, failed=failed, first_rows=before.rows, first_failed=before.failed)
