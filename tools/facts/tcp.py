"""Whether a TCP port accepts connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field

from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.facts.http import ConnectionProblem, problem_of
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec, TcpCheck
from watchkeeper.tools.local import require_known_endpoint, require_local
from watchkeeper.tools.text import shown_path

TIMEOUT = 3.0  # seconds, for a port without a check in the inventory


class TcpCheckArguments(Arguments):
    """The port and where it is."""

    host: str = Field(min_length=1, max_length=253, description="name or address")
    port: int = Field(ge=1, le=65535)


class TcpCheckResult(Result):
    """Whether the port accepted a connection, how long that took, and why not."""

    ok: bool
    seconds: float
    timeout: float
    problem: ConnectionProblem | None = None


class TcpCheckFact(Fact[TcpCheckArguments, TcpCheckResult]):
    """Open a connection to a port and close it again."""

    name = "tcp.check"
    summary = "whether a TCP port accepts connections"
    kinds = frozenset({FindingKind.CHECK_FAILING, FindingKind.CHECK_PASSING})
    arguments_type = TcpCheckArguments
    result_type = TcpCheckResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Check each TCP check of the inventory."""
        checks = [check for service in spec.services for check in service.checks]
        return [{"host": c.host, "port": c.port} for c in checks if isinstance(c, TcpCheck)]

    def collect(self, target: Target, arguments: TcpCheckArguments) -> Raw:
        """Open the connection.

        Raises:
            CollectError: If the port is not one that may be asked.
        """
        require_local(target, self.name)
        require_known_endpoint(target.spec, arguments.host, arguments.port)
        timeout = TIMEOUT
        for service in target.spec.services:
            for check in service.checks:
                if isinstance(check, TcpCheck) and (check.host, check.port) == (
                    arguments.host,
                    arguments.port,
                ):
                    timeout = check.timeout
        started = time.monotonic()
        problem = None
        try:
            socket.create_connection((arguments.host, arguments.port), timeout=timeout).close()
        except (OSError, UnicodeError) as error:
            problem = ConnectionProblem.NAME if isinstance(error, UnicodeError) else problem_of(error)
        return {"problem": problem, "seconds": round(time.monotonic() - started, 3), "timeout": timeout}

    def interpret(self, raw: Raw, arguments: TcpCheckArguments) -> TcpCheckResult:  # noqa: ARG002 (all that counts was read)
        """Take what came of the attempt."""
        return TcpCheckResult.model_validate(raw | {"ok": raw["problem"] is None})

    def findings(self, result: TcpCheckResult, arguments: TcpCheckArguments) -> Iterator[Finding]:
        """Say whether the check passes."""
        subject = f"{shown_path(arguments.host)}:{arguments.port}"
        if result.ok:
            text = f"TCP port {subject} accepted a connection in {result.seconds:.2f} seconds."
            yield Finding(kind=FindingKind.CHECK_PASSING, subject=subject, text=text)
        else:
            text = f"TCP port {subject} did not accept a connection: {result.problem}."
            yield Finding(
                kind=FindingKind.CHECK_FAILING, subject=subject, text=text, severity=Severity.CRITICAL
            )

    def describe(self, arguments: TcpCheckArguments) -> str:
        """Say which port is tried."""
        return f"whether TCP port {shown_path(arguments.host)}:{arguments.port} accepts connections"
