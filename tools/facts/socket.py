"""Which ports are listened on, and by which process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HttpCheck
from watchkeeper.tools.local import endpoint, is_loopback, require_local
from watchkeeper.tools.text import process_identity, shown_name

LIMIT = 100  # sockets kept


class SocketListArguments(Arguments):
    """None: all sockets that listen."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListeningSocket(_Part):
    """A socket that waits for connections or datagrams.

    Attributes:
        protocol: Of the socket.
        address: It is bound to.
        port: Likewise.
        pid: Of a process that holds it; None if that cannot be seen.
        process: Its name, which it chooses itself.
        start_time: When it was started (seconds since 1970); with the number it names one process for good.
    """

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    pid: int | None
    process: str | None
    start_time: float | None = None


class ExpectedPort(_Part):
    """A port of this machine on which a check of the inventory relies."""

    service: str
    port: int


class _ListRaw(_Part):
    sockets: tuple[ListeningSocket, ...]
    expected: tuple[ExpectedPort, ...]


class SocketListResult(Result):
    """What listens, and the ports on which checks of the inventory rely."""

    sockets: tuple[ListeningSocket, ...]
    expected: tuple[ExpectedPort, ...]


class SocketList(Fact[SocketListArguments, SocketListResult]):
    """List the sockets that listen."""

    name = "socket.list"
    summary = "which ports are listened on, and by which process"
    provenance = Provenance.UNTRUSTED  # processes choose their names
    kinds = frozenset({FindingKind.CHECK_FAILING, FindingKind.CUSTOM})
    arguments_type = SocketListArguments
    result_type = SocketListResult

    def collect(self, target: Target, arguments: SocketListArguments) -> Raw:  # noqa: ARG002 (there are none)
        """Read the kernel's table of sockets.

        Raises:
            CollectError: If it cannot be read.
        """
        require_local(target, self.name)
        try:
            connections = psutil.net_connections("inet")
        except psutil.AccessDenied as error:
            raise CollectError("the table of sockets cannot be read: run as root") from error
        holders: dict[int, tuple[str | None, float | None]] = {}
        sockets: list[Any] = []
        for item in connections:
            if not item.laddr:
                continue
            tcp = item.type == socket.SOCK_STREAM
            # A datagram socket with a peer is a client's.
            if item.raddr or (tcp and item.status != psutil.CONN_LISTEN):
                continue
            if item.pid is not None and item.pid not in holders:
                holders[item.pid] = _holder(item.pid)
            name, start_time = (None, None) if item.pid is None else holders[item.pid]
            sockets.append(
                {
                    "protocol": "tcp" if tcp else "udp",
                    "address": item.laddr.ip,
                    "port": item.laddr.port,
                    "pid": item.pid,
                    "process": name,
                    "start_time": start_time,
                }
            )
        expected: list[Any] = []
        for service in target.spec.services:
            for check in service.checks:
                place = endpoint(check.url)[1:] if isinstance(check, HttpCheck) else (check.host, check.port)
                if is_loopback(place[0]):
                    expected.append({"service": service.name, "port": place[1]})
        return {"sockets": sockets, "expected": expected}

    def interpret(self, raw: Raw, arguments: SocketListArguments) -> SocketListResult:  # noqa: ARG002 (none)
        """Sort them, those on which a check relies first."""
        read = _ListRaw.model_validate(raw)
        ports = {item.port for item in read.expected}
        sockets = sorted(
            dict.fromkeys(
                s.model_copy(update={"process": None if s.process is None else shown_name(s.process)})
                for s in read.sockets
            ),
            key=lambda s: (s.port not in ports, s.protocol, s.port, s.address, s.pid or 0),
        )
        return SocketListResult(
            sockets=tuple(sockets[:LIMIT]),
            expected=tuple(dict.fromkeys(read.expected)),
            cut=len(sockets) > LIMIT,
        )

    def findings(
        self,
        result: SocketListResult,
        arguments: SocketListArguments,  # noqa: ARG002 (there are none)
    ) -> Iterator[Finding]:
        """Say who holds the ports on which checks rely, and which nobody holds."""
        for port in result.expected:
            holders = [s for s in result.sockets if s.protocol == "tcp" and s.port == port.port]
            if not holders:
                yield Finding(
                    kind=FindingKind.CHECK_FAILING,
                    subject=f"port {port.port}",
                    text=f"No process listens on port {port.port}, where {port.service} should answer.",
                    severity=Severity.CRITICAL,
                    told=f"No process listens on port {port.port}, where {port.service} should answer.",
                )
            for holder in {s.pid: s for s in holders if s.pid is not None}.values():
                yield Finding(
                    kind=FindingKind.CUSTOM,
                    subject=str(holder.pid),
                    text=(
                        f"Process {holder.pid} (named {holder.process}) listens on port {port.port}, "
                        f"where {port.service} should answer."
                    ),
                    told=f"Process {holder.pid} listens on port {port.port}, where {port.service} "
                    "should answer.",
                )

    def offers(self, result: SocketListResult) -> dict[str, list[str]]:
        """Offer the processes that hold ports on which checks rely to actions that take one."""
        ports = {item.port for item in result.expected}
        holding = [s for s in result.sockets if s.protocol == "tcp" and s.port in ports]
        identities = [
            process_identity(s.pid, s.start_time)
            for s in holding
            if s.pid is not None and s.start_time is not None
        ]
        return {"process": list(dict.fromkeys(identities))}


def _holder(pid: int) -> tuple[str | None, float | None]:
    """Return the name of a process and when it was started; None where it has ended."""
    try:
        process = psutil.Process(pid)
        return process.name().encode("utf-8", "backslashreplace").decode(), process.create_time()
    except psutil.Error:
        return None, None
