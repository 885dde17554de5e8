"""Talking to the demo's supervisord over its UNIX socket."""

from __future__ import annotations

import http.client
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport


class SupervisionError(Exception):
    """The supervisor did not do what was asked."""


@dataclass(frozen=True, slots=True)
class Program:
    """A supervised program: its state (``RUNNING``, ``EXITED``, ...) and process id (0 if none)."""

    name: str
    state: str
    pid: int


class Supervisor:
    """A supervisord behind a UNIX socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(server.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException) as error:
            raise SupervisionError(
                f"supervisord at {str(self._socket)!r} does not answer: {error}"
            ) from error
        except xmlrpc.client.Fault as error:
            raise SupervisionError(
                f"supervisord refused {method}{arguments!r}: {error.faultString}"
            ) from error
        finally:
            transport.close()

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            return bool(self._call("getState"))
        except SupervisionError:
            return False

    def programs(self) -> dict[str, Program]:
        """Return all programs by name."""
        return {
            info["name"]: Program(info["name"], info["statename"], info["pid"])
            for info in self._call("getAllProcessInfo")
        }

    def program(self, name: str) -> Program:
        """Return one program."""
        info = self._call("getProcessInfo", name)
        return Program(info["name"], info["statename"], info["pid"])

    def start(self, name: str) -> bool:
        """Start a program and wait; whether it stayed up."""
        try:
            return bool(self._call("startProcess", name, True))
        except SupervisionError:
            return False

    def stop(self, name: str) -> None:
        """Stop a program and wait; a stopped one stays so."""
        if self.program(name).state in {"RUNNING", "STARTING", "BACKOFF"}:
            self._call("stopProcess", name, True)

    def restart(self, name: str) -> bool:
        """Stop and start a program; whether it stayed up."""
        self.stop(name)
        return self.start(name)

    def shutdown(self) -> None:
        """End the supervisor and its programs."""
        self._call("shutdown")

    def wait_running(self, timeout: float) -> bool:
        """Wait until every program runs."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if all(program.state == "RUNNING" for program in self.programs().values()):
                    return True
            except SupervisionError:
                pass
            time.sleep(0.05)
        return False
