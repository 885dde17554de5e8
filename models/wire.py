"""HTTP with one endpoint: retries where they are safe, time-outs, and requests that can be abandoned.

The connections live in a thread of their own, so that whoever waits for an answer can stop waiting at any
moment, also before the first byte came, and the endpoint sees its client go.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import queue
import random
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx

from watchkeeper.models.endpoint import Endpoint
from watchkeeper.models.errors import CancelledError, InvalidReplyError, ModelError, RemoteError
from watchkeeper.models.refusals import Refusal, seconds_to_wait

T = TypeVar("T")

_POLL_SECONDS: Final = 0.02
_MOST_BYTES: Final = 32 << 20
_BUSY: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an endpoint is waited for.

    Attributes:
        connect: Seconds until a connection stands.
        read: Seconds between two pieces of an answer; where it is not streamed, until all of it is there.
    """

    connect: float = 5.0
    read: float = 600.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and after what pauses, a request is sent again.

    Pauses double and are drawn between nothing and their bound ("full jitter"), so that clients that failed
    together do not come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Attributes:
        attempts: How often a request is sent at most.
        first_seconds: Bound of the first pause.
        longest_seconds: Bound of every pause; an endpoint that asks for more is given up.
    """

    attempts: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 30.0

    def pause(self, attempt: int, asked: float | None, rng: random.Random) -> float | None:
        """Seconds to wait after an attempt (from 1), or None to give up.

        Args:
            attempt: Number of the attempt that failed.
            asked: Seconds that the endpoint asked to wait.
            rng: Draws the pause.
        """
        if attempt >= self.attempts or (asked is not None and asked > self.longest_seconds):
            return None
        bound = min(self.longest_seconds, self.first_seconds * 2 ** (attempt - 1))
        drawn = rng.uniform(0, bound)
        # Never before the endpoint asked for, and not all at that very moment.
        return drawn if asked is None else asked + min(drawn, self.first_seconds)


class _PassingError(Exception):
    """What may be gone at the next attempt."""

    def __init__(self, error: ModelError, asked: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.asked = asked


class Wire:
    """Asks one endpoint.

    Args:
        endpoint: Where it is.
        api_key: Sent as a bearer token; never shown.
        timeouts: How long it is waited for.
        retries: How often a request is sent again.
        rng: Draws the pauses between.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._api_key = api_key
        self._timeouts = timeouts or Timeouts()
        self._retries = retries or Retries()
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx.AsyncClient | None = None
        self._closed = False

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        cancel: Callable[[], bool] | None = None,
    ) -> Any:
        """Send a request and return the JSON of its answer.

        Raises:
            ModelError: As :mod:`watchkeeper.models.refusals` reads what the endpoint says.
            RemoteError: If it cannot be reached, or not in time.
            InvalidReplyError: If the answer is no JSON.
            CancelledError: If it was cancelled.
        """
        future = self._submit(self._with_retries(lambda: self._answer(method, path, body)))
        try:
            while not concurrent.futures.wait([future], timeout=_POLL_SECONDS).done:
                _refuse_cancelled(cancel)
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._closing() from None
        finally:
            future.cancel()

    def events(
        self, path: str, body: Mapping[str, Any], *, cancel: Callable[[], bool] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Send a request and yield the JSON of its server-sent events, up to ``[DONE]``.

        Nothing is sent before the first event is asked for. The connection is closed as soon as the iterator
        is. Errors are those of :meth:`ask`, and RemoteError where the stream breaks off.
        """
        arrived: queue.SimpleQueue[dict[str, Any] | BaseException | None] = queue.SimpleQueue()
        future = self._submit(self._pump(path, body, arrived.put))
        future.add_done_callback(lambda done: arrived.put(self._ending(done)))
        try:
            while True:
                _refuse_cancelled(cancel)
                try:
                    event = arrived.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            future.cancel()

    def close(self) -> None:
        """End all requests and close the connections."""
        with self._lock:
            self._closed = True
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._closed:
                work.close()
                raise self._closing()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="watchkeeper-remote", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _ending(self, future: concurrent.futures.Future[None]) -> BaseException | None:
        return self._closing() if future.cancelled() else future.exception()

    def _closing(self) -> ModelError:
        return ModelError(f"the engine for {self._endpoint.url} is closed; open another one")

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        """Return the client; only called in the thread of the connections."""
        if self._client is None:
            headers = {"user-agent": "watchkeeper", "accept": "application/json, text/event-stream"}
            if self._api_key:
                headers["authorization"] = f"Bearer {self._api_key}"
            self._client = httpx.AsyncClient(
                headers=headers,
                timeout=httpx.Timeout(self._timeouts.read, connect=self._timeouts.connect, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
                # A proxy of the environment cannot reach what listens on this machine only.
                trust_env=not self._endpoint.is_local,
            )
        return self._client

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        number = 1
        while True:
            try:
                return await attempt()
            except _PassingError as passing:
                pause = self._retries.pause(number, passing.asked, self._rng)
                if pause is None:
                    raise passing.error from passing.__cause__
                number += 1
                await asyncio.sleep(pause)

    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        data = b"".join([piece async for piece in self._bytes(method, path, body)])
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            shown = data[:80].decode("utf-8", "replace")
            raise InvalidReplyError(f"{self._endpoint.url}{path} answered no JSON: {shown!r}") from error

    async def _pump(
        self, path: str, body: Mapping[str, Any], deliver: Callable[[dict[str, Any]], None]
    ) -> None:
        delivered = 0

        async def attempt() -> None:
            nonlocal delivered
            try:
                async with contextlib.aclosing(self._events(path, body)) as events:
                    async for event in events:
                        delivered += 1
                        deliver(event)
            except _PassingError as passing:
                if delivered:
                    # What was shown cannot be taken back, so it cannot be asked for again.
                    raise RemoteError(
                        f"{self._endpoint.url} broke off its answer after {delivered} pieces: {passing.error}"
                    ) from passing.__cause__
                raise

        await self._with_retries(attempt)

    async def _events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        rest = b""
        lines: list[bytes] = []
        async with contextlib.aclosing(self._bytes("POST", path, body)) as pieces:
            async for piece in pieces:
                # Only line feeds end a line: JSON may hold the other separators of Unicode as they are.
                *complete, rest = (rest + piece).split(b"\n")
                for line in complete:
                    stripped = line.rstrip(b"\r")
                    if stripped.startswith(b"data:"):
                        lines.append(stripped[5:].strip())
                    elif not stripped and lines:
                        data, lines = b"\n".join(lines), []
                        if data == b"[DONE]":
                            return
                        yield self._event(data)
        raise _PassingError(RemoteError(f"{self._endpoint.url} ended its stream without saying so"))

    def _event(self, data: bytes) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            shown = data[:80].decode("utf-8", "replace")
            raise InvalidReplyError(f"{self._endpoint.url} streamed what is no JSON object: {shown!r}")
        if "error" in event:
            raise self._refusal(500, data, None).error()
        return event

    async def _bytes(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncGenerator[bytes, None]:
        where = f"{self._endpoint.url}{path}"
        try:
            async with self._opened().stream(method, where, json=body) as response:
                if response.status_code != 200:
                    data = b"".join([piece async for piece in _bounded(response, where)])
                    refusal = self._refusal(response.status_code, data, response.headers.get("retry-after"))
                    if response.status_code in _BUSY and refusal.may_pass:
                        raise _PassingError(refusal.error(), refusal.retry_after)
                    raise refusal.error()
                async for piece in _bounded(response, where):
                    yield piece
        except httpx.ConnectTimeout as error:
            raise _PassingError(
                RemoteError(f"{where} was not reached within {self._timeouts.connect:g} s; is it running?")
            ) from error
        except httpx.TimeoutException as error:
            raise RemoteError(f"{where} said nothing for {self._timeouts.read:g} s") from error
        except httpx.ConnectError as error:
            raise _PassingError(RemoteError(f"{where} cannot be reached: {error}; is it running?")) from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            said = str(error) or type(error).__name__
            raise _PassingError(RemoteError(f"the connection to {where} broke: {said}")) from error
        except httpx.HTTPError as error:
            raise RemoteError(f"{where} cannot be asked: {error}") from error

    def _refusal(self, status: int, data: bytes, retry_after: str | None) -> Refusal:
        return Refusal.read(
            self._endpoint.url, status, data, seconds_to_wait(retry_after), secret=self._api_key
        )


async def _bounded(response: httpx.Response, where: str) -> AsyncGenerator[bytes, None]:
    """Yield what an endpoint sends, which need not be what it should."""
    read = 0
    async for piece in response.aiter_bytes():
        read += len(piece)
        if read > _MOST_BYTES:
            raise InvalidReplyError(f"{where} answered with more than {_MOST_BYTES:,} bytes")
        yield piece


def _refuse_cancelled(cancel: Callable[[], bool] | None) -> None:
    if cancel is not None and cancel():
        raise CancelledError("cancelled while the endpoint was asked")
