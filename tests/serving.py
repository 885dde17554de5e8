"""Real servers on loopback ports that tests pick: our own over an engine, and ones that misbehave."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from watchkeeper.models.interface import Engine
from watchkeeper.models.server.app import Service
from watchkeeper.models.server.running import Runner, address_of, listen


@dataclass
class Served:
    """A server that runs."""

    url: str
    service: Service
    runner: Runner
    thread: threading.Thread

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def stop(self) -> None:
        self.runner.stop()
        self.thread.join(30)


@contextlib.contextmanager
def serving(engine: Engine, *, grace: float = 1.0, **options: Any) -> Iterator[Served]:
    """Serve an engine in a thread of this process."""
    listening = listen("127.0.0.1", 0, guarded=False)
    service = Service(engine, **options)
    runner = Runner(service, grace=grace)
    thread = threading.Thread(target=runner.run, args=([listening],), name="test-server")
    thread.start()
    served = Served(address_of(listening), service, runner, thread)
    try:
        yield served
    finally:
        served.stop()
        listening.close()


class Reset:
    """In place of an answer: the connection is reset."""


@dataclass(frozen=True)
class Answer:
    """What a scripted server sends.

    Attributes:
        body: A JSON value, or bytes as they are.
        status: HTTP status.
        headers: HTTP headers.
        stream: Events to stream in place of a body.
        whole: Whether the body is sent to its end; else the connection ends half-way.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stream: Sequence[Any] | None = None
    whole: bool = True


@dataclass
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: Any


Script = Callable[[Asked, int], "Answer | Reset"]


@dataclass
class Flaky:
    """A server that answers from a script."""

    url: str
    asked: list[Asked]

    @property
    def chats(self) -> list[Asked]:
        return [one for one in self.asked if one.path.endswith("/chat/completions")]


@contextlib.contextmanager
def flaky(script: Script, *, models: Any = None) -> Iterator[Flaky]:
    """Run a server that answers questions from a script, given the request and its number from 0."""
    asked: list[Asked] = []
    listed = {"object": "list", "data": [{"id": "m", "object": "model"}]} if models is None else models

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send(Answer(listed))

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            one = Asked(self.path, dict(self.headers), json.loads(self.rfile.read(length)))
            asked.append(one)
            answer = script(one, len(asked) - 1)
            if isinstance(answer, Reset):
                # Without lingering, closing sends a reset and no end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            self.send(answer)

        def send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.stream is not None:
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for event in answer.stream:
                    text = event if isinstance(event, str) else json.dumps(event)
                    self.wfile.write(f"data: {text}\n\n".encode())
                self.close_connection = True
                return
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if answer.whole else data[: len(data) // 2])
            self.close_connection = self.close_connection or not answer.whole

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="test-flaky")
    thread.start()
    try:
        yield Flaky(f"http://127.0.0.1:{server.server_address[1]}/v1", asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(
    text: str = "", calls: Sequence[tuple[str, str]] = (), *, finish: str = "stop", **more: Any
) -> dict[str, Any]:
    """A chat completion as other servers write it."""
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(calls)
        ]
    return {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish, **more}]}


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    """A chunk of a streamed completion."""
    return {"id": "x", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}
