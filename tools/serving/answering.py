"""Who answers a request and what becomes of the answer: champion, canary and shadow, batched and recorded."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue

from watchkeeper.tools.errors import RecordingError
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.recording import Predictions, Recorded
from watchkeeper.tools.serving.batching import Asked, Batcher, QueueFullError
from watchkeeper.tools.serving.following import Follower
from watchkeeper.tools.serving.metrics import Metrics
from watchkeeper.tools.serving.routing import is_canary
from watchkeeper.tools.versions.records import CHALLENGER, CHAMPION

_logger = logging.getLogger(__name__)


class NoVersionError(Exception):
    """No version can answer."""


class IdTakenError(Exception):
    """The id of a request is that of an earlier one with other rows."""


class ChallengerMode(StrEnum):
    """What challengers do.

    ``SHADOW``: answer everything that the champion answers; that is recorded, and nobody gets it.
    ``CANARY``: answer a share of the requests in the champion's place.
    """

    OFF = "off"
    SHADOW = "shadow"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one request.

    Attributes:
        id: Id of the request.
        version: Number of the version that answered.
        digest: Its digest.
        role: As what it answered: ``champion``, ``canary`` or ``shadow``.
        ids: Id of each prediction, by which it is labelled later.
        answers: One answer a row.
        taken: Ids under which other rows are recorded already, so that these are not.
    """

    id: str
    version: int
    digest: str
    role: str
    ids: tuple[str, ...]
    answers: list[dict[str, JsonValue]]
    taken: tuple[str, ...] = ()


class Answerer:
    """Answers requests in micro-batches.

    Args:
        follower: Holds the versions.
        pool: Where champions compute.
        challengers: Where challengers do, so that a slow one keeps no champion waiting.
        metrics: What is counted.
        challenger: What challengers do.
        canary: Share of the requests that they answer, as canaries.
        predictions: Where answers are recorded; nowhere where None.
        window: Seconds that a request waits for others.
        most_rows: Rows that are computed together.
        waiting_rows: Rows of one predictor that may wait.
        now: The time.
    """

    def __init__(
        self,
        follower: Follower,
        pool: concurrent.futures.Executor,
        challengers: concurrent.futures.Executor,
        metrics: Metrics,
        *,
        challenger: ChallengerMode,
        canary: float,
        predictions: Predictions | None,
        window: float,
        most_rows: int,
        waiting_rows: int,
        now: Callable[[], datetime],
    ) -> None:
        self._follower = follower
        self._pool = pool
        self._challengers = challengers
        self._metrics = metrics
        self._challenger = challenger
        self._canary = canary
        self._predictions = predictions
        self._window = window
        self._most_rows = most_rows
        self._waiting_rows = waiting_rows
        self._now = now
        self._batchers: dict[tuple[str, str], Batcher[Answered]] = {}
        self._shadows: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Rows that wait for their turn."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    async def answer(self, name: str, asked: Asked) -> Answered:
        """Answer a request.

        Raises:
            QueueFullError: If too many rows wait.
            NoVersionError: If no version is the champion.
            DataError: If a row is wrong.
            IdTakenError: If its id was that of other rows: what is said to be right would be said of both.
        """
        answered = await self._answer(name, asked)
        if answered.taken:
            raise IdTakenError(
                f"id {answered.taken[0]!r:.80} is recorded for another row: give each request an id of its "
                "own, or none"
            )
        return answered

    async def _answer(self, name: str, asked: Asked) -> Answered:
        has_challenger = self._follower.get(name, CHALLENGER) is not None
        if self._challenger is ChallengerMode.CANARY and has_challenger and is_canary(asked.id, self._canary):
            try:
                return await self._batcher(name, "canary").submit(asked)
            except Exception as error:
                answered = await self._batcher(name, CHAMPION).submit(asked)
                # A row that the champion refuses, too, is the client's mistake.
                self._metrics.challenger_lost(name)
                if not isinstance(error, QueueFullError):
                    _logger.warning("the challenger of %s failed", name, exc_info=error)
                return answered
        answered = await self._batcher(name, CHAMPION).submit(asked)
        if self._challenger is ChallengerMode.SHADOW and has_challenger:
            task = asyncio.create_task(self._shadow(name, asked))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
        return answered

    async def _shadow(self, name: str, asked: Asked) -> None:
        try:
            await self._batcher(name, "shadow").submit(asked)
        except Exception as error:  # noqa: BLE001 (nobody waits for a shadow)
            self._metrics.challenger_lost(name)
            if not isinstance(error, QueueFullError):
                _logger.warning("the shadow of %s failed: %s", name, error)

    def _batcher(self, name: str, role: str) -> Batcher[Answered]:
        batcher = self._batchers.get((name, role))
        if batcher is None:
            batcher = self._batchers[name, role] = Batcher(
                lambda batch: self._compute(name, role, batch),
                self._pool if role == CHAMPION else self._challengers,
                window=self._window,
                most_rows=self._most_rows,
                waiting_rows=self._waiting_rows,
                seen=lambda rows: self._metrics.batch(name, rows),
            )
        return batcher

    def _compute(self, name: str, role: str, batch: Sequence[Asked]) -> list[Answered]:
        """Answer a batch, all of it by one version; runs in a thread."""
        alias = CHAMPION if role == CHAMPION else CHALLENGER
        loaded = self._follower.get(name, alias)
        if loaded is None:
            raise NoVersionError(
                f"predictor {name!r} has no {alias}; promote a version with "
                f"`watchkeeper predictors promote {name} VERSION`"
            )
        rows: list[Row] = [row for asked in batch for row in asked.rows]
        try:
            answers = loaded.predictor.predict(rows)
            if len(answers) != len(rows):
                raise RuntimeError(f"{len(rows)} rows were asked and {len(answers)} answered")
        except Exception:
            # Where one of several requests cannot be answered, they are asked again in halves.
            if len(batch) == 1:
                self._record_failure(name, loaded.version.number, role, len(rows))
            raise
        self._metrics.computed(name, loaded.version.number, role, len(rows))
        done: list[Answered] = []
        start = 0
        for asked in batch:
            stop = start + len(asked.rows)
            done.append(
                Answered(
                    id=asked.id,
                    version=loaded.version.number,
                    digest=loaded.version.digest,
                    role=role,
                    ids=_ids(asked),
                    answers=answers[start:stop],
                )
            )
            start = stop
        taken = self._record(name, batch, done)
        return (
            [replace(one, taken=tuple(id_ for id_ in one.ids if id_ in taken)) for one in done]
            if taken
            else done
        )

    def _record(self, name: str, batch: Sequence[Asked], done: Sequence[Answered]) -> frozenset[str]:
        """Record answers, and return the ids that are those of other rows."""
        if self._predictions is None:
            return frozenset()
        at, done_at = self._now(), time.monotonic()
        found = [
            Recorded(
                name,
                id_,
                answered.version,
                answered.role,
                at,
                row,
                answer,
                seconds=done_at - asked.since,
            )
            for asked, answered in zip(batch, done, strict=True)
            for id_, row, answer in zip(answered.ids, asked.rows, answered.answers, strict=True)
        ]
        try:
            return self._predictions.record(found)
        except RecordingError:
            # An answer is worth more than its record.
            self._metrics.unrecorded(name, len(found))
            _logger.exception("answers of %s were not recorded", name)
            return frozenset()

    def _record_failure(self, name: str, version: int, role: str, rows: int) -> None:
        if self._predictions is None:
            return
        try:
            self._predictions.record_failure(name, version, role, rows, self._now())
        except RecordingError:
            self._metrics.unrecorded(name, rows)
            _logger.exception("failures of %s were not recorded", name)


def _ids(asked: Asked) -> tuple[str, ...]:
    if len(asked.rows) == 1:
        return (asked.id,)
    return tuple(f"{asked.id}:{number}" for number in range(len(asked.rows)))
