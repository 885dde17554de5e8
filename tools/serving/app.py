"""The server of predictors as an ASGI application: what it answers at which address."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from watchkeeper.models.server.admission import Admission
from watchkeeper.models.server.errors import HttpError, closing
from watchkeeper.models.server.keys import ApiKeys
from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.recording import Predictions
from watchkeeper.tools.serving.answering import (
    Answered,
    Answerer,
    ChallengerMode,
    IdTakenError,
    NoVersionError,
)
from watchkeeper.tools.serving.batching import Asked, QueueFullError
from watchkeeper.tools.serving.following import Follower
from watchkeeper.tools.serving.metrics import CONTENT_TYPE, Metrics
from watchkeeper.tools.versions.records import CHALLENGER, CHAMPION

CLIENT_GONE = 499
"""Status under which a request is counted whose client went away; nobody sees it."""

_ID = r"^[!-~]{0,200}$"
_logger = logging.getLogger(__name__)
_B = TypeVar("_B", bound=BaseModel)
_Handler = Callable[[Request], Awaitable[Response]]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PredictBody(_Body):
    """Rows to answer, and an id by which the request is known later."""

    rows: list[dict[str, JsonValue]] = Field(min_length=1)
    id: str = Field(default="", pattern=_ID)


class LabelsBody(_Body):
    """What was right, by the id of the prediction."""

    labels: dict[str, JsonValue] = Field(min_length=1)


class PredictService:
    """Answers clients with the champions among the versions of predictors.

    Args:
        follower: Holds the versions, loaded.
        keys: Who may ask; everybody where None.
        local_only: Refuse requests that name another host than this machine.
        challenger: What challengers do.
        canary: Share of the requests that challengers answer, where they are canaries.
        predictions: Where answers are recorded; nowhere where None.
        window: Seconds that a request waits for others to be answered with; 0 for none.
        most_rows: Rows that are computed together.
        waiting_rows: Rows of one predictor that may wait; beyond that clients are told to come back.
        most_bytes: Size of the largest body that is read.
        threads: Champions that compute at once, and challengers beside them.
        now: The time.
    """

    def __init__(
        self,
        follower: Follower,
        *,
        keys: ApiKeys | None = None,
        local_only: bool = False,
        challenger: ChallengerMode = ChallengerMode.OFF,
        canary: float = 0.0,
        predictions: Predictions | None = None,
        window: float = 0.002,
        most_rows: int = 256,
        waiting_rows: int = 4096,
        most_bytes: int = 4 << 20,
        threads: int = 2,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._follower = follower
        self._admission = Admission(keys, local_only, most_bytes)
        self._predictions = predictions
        self._waiting_rows = waiting_rows
        self._now = now
        pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="watchkeeper-predict")
        challengers = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="watchkeeper-try")
        self.metrics = Metrics(
            waiting=lambda: self._answerer.waiting, problems=lambda: len(follower.problems)
        )
        self._answerer = Answerer(
            follower,
            pool,
            challengers,
            self.metrics,
            challenger=challenger,
            canary=canary,
            predictions=predictions,
            window=window,
            most_rows=most_rows,
            waiting_rows=waiting_rows,
            now=now,
        )
        self._work = PredictWork(follower, (pool, challengers))

    @property
    def workers(self) -> PredictWork:
        """What it does for its clients."""
        return self._work

    def application(self) -> Starlette:
        """Return the application."""
        at = "/v1/predictors/{name}"
        routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/v1/predictors", self._guarded(self._list), methods=["GET"]),
            Route(f"{at}/predict", self._guarded(self._predict), methods=["POST"]),
            Route(f"{at}/labels", self._guarded(self._labels), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})

    async def _health(self, request: Request) -> Response:
        del request
        if self._work.closing:
            return JSONResponse({"status": "closing"}, 503)
        # Read before what answers: a version that is about to must not look as if nothing were loading.
        loading, failed = _by_name(self._follower.loading), _by_name(self._follower.failed)
        named: dict[str, dict[str, int]] = {name: {} for name in self._follower.names}
        named |= _by_name(self._versions())
        status = "degraded" if self._follower.problems else "ok"
        return JSONResponse({"status": status, "predictors": named, "loading": loading, "failed": failed})

    async def _metrics(self, request: Request) -> Response:
        del request
        return Response(self.metrics.exposition(self._versions()), headers={"content-type": CONTENT_TYPE})

    async def _list(self, request: Request) -> Response:
        del request
        found = []
        for name in self._follower.names:
            loaded = self._follower.get(name, CHAMPION)
            if loaded is not None:
                version = loaded.version
                found.append(
                    {
                        "predictor": name,
                        "version": version.number,
                        "digest": version.digest,
                        "kind": loaded.predictor.kind,
                        "columns": dict(loaded.predictor.columns),
                    }
                )
        return JSONResponse({"predictors": found})

    async def _predict(self, request: Request) -> Response:
        name = self._known(request)
        body = _parse(await self._admission.body(request), PredictBody)
        if len(body.rows) > self._waiting_rows:
            raise HttpError(
                413,
                f"{len(body.rows)} rows are more than {self._waiting_rows}: send them in several requests",
            )
        answered = await self._answerer.answer(name, Asked(body.id or uuid.uuid4().hex, body.rows))
        return Response(_json(name, answered), media_type="application/json")

    async def _labels(self, request: Request) -> Response:
        name = self._known(request)
        body = _parse(await self._admission.body(request), LabelsBody)
        if self._predictions is None:
            raise HttpError(404, "this server records no predictions, so there is nothing to label")
        unknown = await asyncio.to_thread(self._predictions.label, name, body.labels, self._now())
        return JSONResponse({"labelled": len(body.labels) - len(unknown), "unknown": list(unknown)})

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: Request) -> Response:
            started = time.monotonic()
            response: Response
            try:
                self._admit(request)
                response = await handler(request)
            except ClientDisconnect:
                response = Response(status_code=CLIENT_GONE)
            except Exception as error:  # noqa: BLE001 (every error is an answer to its client)
                response = _error_response(error)
            name = request.path_params.get("name", "")
            # A name that nobody knows would make a new row of counters for each request.
            counted = name if name in self._follower.names else "-"
            self.metrics.answered(counted, response.status_code, time.monotonic() - started)
            return response

        return guarded

    def _admit(self, request: Request) -> None:
        self._admission.check(request)
        if self._work.closing:
            raise closing()

    def _known(self, request: Request) -> str:
        name: str = request.path_params["name"]
        if name not in self._follower.names:
            known = ", ".join(self._follower.names) or "none"
            raise HttpError(
                404, f"no predictor {name!r:.80} is served here; there is: {known}", code="not_found"
            )
        return name

    def _versions(self) -> dict[tuple[str, str], int]:
        found = {}
        for name in self._follower.names:
            for alias in (CHAMPION, CHALLENGER):
                loaded = self._follower.get(name, alias)
                if loaded is not None:
                    found[name, alias] = loaded.version.number
        return found


class PredictWork:
    """The work of a service, which can be brought to an end."""

    def __init__(self, follower: Follower, pools: Sequence[concurrent.futures.ThreadPoolExecutor]) -> None:
        self._follower = follower
        self._pools = tuple(pools)
        self.closing = False

    def refuse(self) -> None:
        """Take no more; what is under way goes on."""
        self.closing = True

    def cancel_all(self) -> None:
        """Begin no more batches; one that is computed ends by itself within moments."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End everything and wait for it."""
        self.refuse()
        self._follower.stop()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _by_name(numbers: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (name, alias), number in dict(numbers).items():
        found.setdefault(name, {})[alias] = number
    return found


def _parse(data: bytes, kind: type[_B]) -> _B:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise HttpError(400, f"{place}: {first['msg']}", param=place) from error


def _json(name: str, answered: Answered) -> bytes:
    body = {
        "id": answered.id,
        "predictor": name,
        "version": answered.version,
        "digest": answered.digest,
        "role": answered.role,
        "ids": list(answered.ids),
        "answers": answered.answers,
    }
    return json.dumps(body, allow_nan=False).encode()


def _error_response(error: Exception) -> JSONResponse:
    match error:
        case HttpError():
            refused = error
        case QueueFullError():
            refused = HttpError(
                503,
                f"{error}: come back later",
                type="server_error",
                code="busy",
                headers={"retry-after": "1"},
            )
        case NoVersionError():
            refused = HttpError(
                503, str(error), type="server_error", code="no_version", headers={"retry-after": "5"}
            )
        case IdTakenError():
            refused = HttpError(409, str(error), code="id_taken", param="id")
        case DataError():
            refused = HttpError(422, str(error), code="invalid_row")
        case _:
            # Its text may hold what no client should see.
            said = f"the server failed ({type(error).__name__})"
            refused = HttpError(500, said, type="server_error", code="internal")
            _logger.error("a request failed", exc_info=error)
    return JSONResponse(refused.body(), refused.status, headers=refused.headers)


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    said = f"nothing answers {request.method} {request.url.path}"
    return JSONResponse(HttpError(status, said, code="unknown_url").body(), status)
