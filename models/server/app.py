"""The server as an ASGI application: what it answers at which address."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from watchkeeper.models.errors import BudgetExceededError
from watchkeeper.models.interface import Cancellation, Choice, Chunk, Engine, Generation, GenerationRequest
from watchkeeper.models.server.admission import Admission
from watchkeeper.models.server.bodies import ChatBody, ChooseBody
from watchkeeper.models.server.errors import ClientGoneError, HttpError, as_http, closing
from watchkeeper.models.server.keys import ApiKeys
from watchkeeper.models.server.metrics import CONTENT_TYPE, Metrics
from watchkeeper.models.server.reading import choice_request, generation_request, parse
from watchkeeper.models.server.workers import Workers
from watchkeeper.models.server.writing import Completion, choice_of, event, model_of

Handler = Callable[[Request], Awaitable[Response]]

CLIENT_GONE = 499
"""Status under which a request is counted whose client went away; nobody sees it."""

_logger = logging.getLogger(__name__)


class Service:
    """Answers the clients of one engine.

    Args:
        engine: Who answers them; it is closed by whoever opened it.
        name: Name of its model for clients.
        keys: Who may ask; everybody where ``None``.
        local_only: Refuse requests that name another host than this machine: a page in a browser must not
            reach a server without keys by a name that leads here.
        running: How many requests are in the engine at once: more than it computes together, so that it can
            choose by priority.
        waiting: How many more may wait.
        most_bytes: Size of the largest body that is read.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str | None = None,
        keys: ApiKeys | None = None,
        local_only: bool = False,
        running: int = 32,
        waiting: int = 128,
        most_bytes: int = 16 << 20,
    ) -> None:
        self._engine = engine
        self._identity = engine.identity
        self._name = name or self._identity.id
        self._admission = Admission(keys, local_only, most_bytes)
        self._workers = Workers(running=running, waiting=waiting)
        self.metrics = Metrics(running=lambda: self.workers.running, waiting=lambda: self.workers.waiting)

    @property
    def workers(self) -> Workers:
        """Who asks the engine."""
        return self._workers

    @property
    def name(self) -> str:
        """Name of the model for clients."""
        return self._name

    def application(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/v1/models", self._guarded("models", self._models), methods=["GET"]),
            Route("/v1/models/{model:path}", self._guarded("models", self._model), methods=["GET"]),
            Route("/v1/chat/completions", self._guarded("chat", self._chat), methods=["POST"]),
            Route("/v1/choose", self._guarded("choose", self._choose), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})

    async def _health(self, request: Request) -> Response:
        del request
        if self.workers.closing:
            return JSONResponse({"status": "closing"}, 503)
        return JSONResponse({"status": "ok", "model": self._name})

    async def _metrics(self, request: Request) -> Response:
        del request
        return Response(self.metrics.exposition(), headers={"content-type": CONTENT_TYPE})

    async def _models(self, request: Request) -> Response:
        del request
        return JSONResponse({"object": "list", "data": self._listed()})

    async def _model(self, request: Request) -> Response:
        wanted = request.path_params["model"]
        for described in self._listed():
            if described["id"] == wanted:
                return JSONResponse(described)
        raise self._unknown(wanted)

    async def _chat(self, request: Request) -> Response:
        body = parse(await self._admission.body(request, too_large="context_length_exceeded"), ChatBody)
        # What a grammar makes of a schema may take a while, which other clients must not wait for.
        asked = await asyncio.to_thread(generation_request, body, self._adapter(body.model))
        completion = Completion(body.model)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return await self._streamed(request, asked, completion, include_usage=usage)

        def work(cancel: Cancellation) -> Generation:
            return self._engine.generate(asked, cancel=cancel)

        try:
            answer = await self.workers.run(work, request.receive)
        except BudgetExceededError:
            return JSONResponse(completion.cut())
        self.metrics.spent(answer.usage)
        if answer.finish_reason == "cancelled":
            raise closing()
        return JSONResponse(completion.whole(answer))

    async def _choose(self, request: Request) -> Response:
        body = parse(await self._admission.body(request, too_large="context_length_exceeded"), ChooseBody)
        asked = choice_request(body, self._adapter(body.model))

        def work(cancel: Cancellation) -> Choice:
            return self._engine.choose(asked, cancel=cancel)

        choice = await self.workers.run(work, request.receive)
        self.metrics.spent(choice.usage)
        return JSONResponse(choice_of(choice, body.model))

    async def _streamed(
        self, request: Request, asked: GenerationRequest, completion: Completion, *, include_usage: bool
    ) -> Response:
        started = time.monotonic()

        def work(cancel: Cancellation) -> Iterator[Chunk]:
            return self._engine.stream(asked, cancel=cancel)

        chunks = self.workers.stream(work, request.receive)
        # What is refused before the first piece still gets its proper status.
        try:
            first: Chunk | None = await anext(chunks)
        except BudgetExceededError:
            first = None
        self.metrics.first_piece(time.monotonic() - started)
        return _Stream(self, chunks, first, completion, started, include_usage=include_usage)

    def _guarded(self, endpoint: str, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            started = time.monotonic()
            response: Response
            try:
                self._admit(request)
                response = await handler(request)
            except (ClientGoneError, ClientDisconnect):
                response = Response(status_code=CLIENT_GONE)
            except Exception as error:  # noqa: BLE001 (every error of an engine is an answer to its client)
                response = error_response(error)
            if not isinstance(response, _Stream):
                self.metrics.answered(endpoint, response.status_code, time.monotonic() - started)
            return response

        return guarded

    def _admit(self, request: Request) -> None:
        self._admission.check(request)
        if self.workers.closing:
            raise closing()

    def _adapter(self, model: str) -> str | None:
        if model == self._name:
            return None
        base, colon, adapter = model.rpartition(":")
        if colon and base == self._name and adapter in adapter_names(self._engine):
            return adapter
        raise self._unknown(model)

    def _listed(self) -> list[dict[str, Any]]:
        kind, digest = self._identity.quantization, self._identity.digest
        adapters = [f"{self._name}:{adapter}" for adapter in adapter_names(self._engine)]
        return [
            model_of(self._name, quantization=kind, digest=digest),
            *(model_of(name, quantization=kind, digest=digest, parent=self._name) for name in adapters),
        ]

    def _unknown(self, model: str) -> HttpError:
        known = ", ".join(item["id"] for item in self._listed())
        return HttpError(
            404,
            f"no model {model!r:.120} is served here; there is: {known}",
            code="model_not_found",
            param="model",
        )


class _Stream(Response):
    """A streamed answer; what goes wrong on the way is its last event."""

    def __init__(
        self,
        service: Service,
        chunks: Any,
        first: Chunk | None,
        completion: Completion,
        started: float,
        *,
        include_usage: bool,
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._service = service
        self._chunks = chunks
        self._first = first
        self._completion = completion
        self._started = started
        self._include_usage = include_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        status = 200

        async def write(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await write(self._completion.first())
            try:
                await write(await self._rest(write))
            except BudgetExceededError:
                await write(self._completion.last(None, include_usage=False))
            await write(b"", more=False)
        except ClientGoneError:
            status = CLIENT_GONE
        except Exception as error:  # noqa: BLE001 (the status is sent: only an event can still tell)
            refused = as_http(error)
            status = refused.status
            _log(error, refused)
            await write(event(refused.body()))
            await write(b"", more=False)
        finally:
            await self._chunks.aclose()
            self._service.metrics.answered("chat", status, time.monotonic() - self._started)

    async def _rest(self, write: Callable[[bytes], Awaitable[None]]) -> bytes:
        """Write all text and return what ends the stream."""
        if self._first is None:
            return self._completion.last(None, include_usage=False)
        final = await self._show(self._first, write)
        async for chunk in self._chunks:
            final = await self._show(chunk, write) or final
        if final is None or final.finish_reason == "cancelled":
            raise closing()
        self._service.metrics.spent(final.usage)
        return self._completion.last(final, include_usage=self._include_usage)

    async def _show(self, chunk: Chunk, write: Callable[[bytes], Awaitable[None]]) -> Generation | None:
        if chunk.text:
            await write(self._completion.text(chunk.text))
        return chunk.final


def error_response(error: Exception) -> JSONResponse:
    """Return the answer that an error makes, and log it where it is a defect."""
    refused = as_http(error)
    _log(error, refused)
    return JSONResponse(refused.body(), refused.status, headers=refused.headers)


def adapter_names(engine: Engine) -> tuple[str, ...]:
    """Return the adapters that an engine has loaded; an engine without any need not know the word."""
    return tuple(getattr(engine, "adapters", ()))


def _log(error: Exception, refused: HttpError) -> None:
    if refused.status == 500:
        _logger.error("a request failed", exc_info=error)


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    said = f"nothing answers {request.method} {request.url.path}"
    return JSONResponse(HttpError(status, said, code="unknown_url").body(), status)
