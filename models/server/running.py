"""Runs the server until it is stopped, and stops it without cutting anybody off who can still be answered."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Generator
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.applications import Starlette

from watchkeeper.models.endpoint import is_loopback
from watchkeeper.models.server.errors import ServerError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Work(Protocol):
    """What a service does for its clients, which can be brought to an end."""

    def refuse(self) -> None:
        """Take no more of it; what is under way goes on."""

    def cancel_all(self) -> None:
        """End what is under way, soon."""

    def close(self) -> None:
        """End everything and wait for it."""


class Served(Protocol):
    """A service that can be run."""

    @property
    def workers(self) -> Work:
        """Its work."""
        ...

    def application(self) -> Starlette:
        """Return what answers its clients."""
        ...


def listen(host: str, port: int, *, guarded: bool) -> socket.socket:
    """Open the socket that clients connect to.

    Args:
        host: Name or address to listen on.
        port: Port; 0 for any that is free.
        guarded: Whether clients need a key, or whoever starts the server does without on purpose.

    Raises:
        ServerError: If other machines could reach a server without keys, or the address cannot be had.
    """
    if not guarded and not is_loopback(host):
        raise ServerError(
            f"without API keys the server listens on this machine only, not on {host!r}; "
            f"give --api-key-file, or --insecure where everybody who can reach it may use it"
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family, backlog=512)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServerError(
            f"cannot listen on {host!r}, port {port}: {reason}; choose another --host or --port"
        ) from error


def address_of(listening: socket.socket) -> str:
    """Return the address that clients are told."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class Runner(uvicorn.Server):
    """Serves one service.

    Args:
        service: Who answers.
        grace: Seconds that running requests are given when the server is stopped.
    """

    def __init__(self, service: Served, *, grace: float = 10.0) -> None:
        super().__init__(
            uvicorn.Config(
                service.application(),
                # Logging is set up by whoever owns the process.
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=int(grace) + 5,
            )
        )
        self._service = service
        self._grace = grace
        self.stopped_by: int | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer clients until a signal comes, or :meth:`stop` is called."""
        try:
            super().run(sockets)
        finally:
            self._service.workers.close()

    def stop(self) -> None:
        """Take no more requests, answer the running ones, and end."""
        self._service.workers.refuse()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is running for a while, then end it."""
        workers = self._service.workers
        workers.refuse()
        ending = asyncio.get_running_loop().call_later(self._grace, workers.cancel_all)
        await super().shutdown(sockets)
        ending.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal, and at once at the second."""
        del frame
        if self.stopped_by is not None:
            self._service.workers.cancel_all()
            self.force_exit = True
        self.stopped_by = sig
        self.stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Listen to signals while the server runs; whoever started it learns which came."""
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        except ValueError:
            # Only the main thread may listen to signals.
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
