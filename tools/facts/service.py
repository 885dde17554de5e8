"""What a service's supervisor says of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, ClassVar

from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.schema import known
from watchkeeper.tools.supervisors import RunState, ServiceState, supervisor_of
from watchkeeper.tools.text import counted, span_text

RECENT_SECONDS = 120.0
OFTEN = 3  # restarts within ten minutes


class ServiceStatusArguments(Arguments):
    """Which service."""

    service: Annotated[str, known("service", description="name of the service")]


class ServiceStatusResult(Result):
    """State of a service.

    Attributes:
        service: Its name.
        state: How far it is from running.
        pid: Its main process, while it has one.
        started: When its latest process was started (UTC).
        seconds: How long it has been in this state; None if not known.
        uptime: How long its process has been running, in seconds; None if it does not run.
        exit: How its latest ended process ended, in numbers and fixed words.
        restarts: How often within the last ten minutes a process of it ended by itself and was followed by
            another; None if not known.
    """

    service: str
    state: RunState
    pid: int | None
    started: datetime | None
    seconds: float | None
    uptime: float | None
    exit: str
    restarts: int | None


class ServiceStatus(Fact[ServiceStatusArguments, ServiceStatusResult]):
    """Whether a service runs, since when, and how its last process ended."""

    name: ClassVar[str] = "service.status"
    summary: ClassVar[str] = "whether a service is running, and how it ended"
    kinds = frozenset(
        {FindingKind.SERVICE_NOT_RUNNING, FindingKind.SERVICE_RUNNING, FindingKind.SERVICE_RESTARTED}
    )
    arguments_type = ServiceStatusArguments
    result_type = ServiceStatusResult

    def collect(self, target: Target, arguments: ServiceStatusArguments) -> Raw:
        """Ask the service's supervisor.

        Raises:
            CollectError: If it cannot be asked.
            InventoryError: If the host has no such service.
        """
        return supervisor_of(target, arguments.service).status().model_dump(mode="json")

    def interpret(self, raw: Raw, arguments: ServiceStatusArguments) -> ServiceStatusResult:
        """Add how long it has been so."""
        state = ServiceState.model_validate(raw)
        return ServiceStatusResult(
            service=arguments.service,
            state=state.state,
            pid=state.pid,
            started=state.started,
            seconds=state.seconds,
            uptime=state.uptime,
            exit=state.exit,
            restarts=state.restarts,
        )

    def findings(self, result: ServiceStatusResult, arguments: ServiceStatusArguments) -> Iterable[Finding]:
        """Say whether it runs, and whether it has not for long."""
        name = arguments.service
        if result.state is not RunState.RUNNING:
            yield Finding(
                kind=FindingKind.SERVICE_NOT_RUNNING,
                subject=name,
                text=f"service {name} is not running: {_why(result)}",
                severity=Severity.CRITICAL,
            )
            return
        for_how_long = "" if result.uptime is None else f" for {span_text(result.uptime)}"
        yield Finding(
            kind=FindingKind.SERVICE_RUNNING, subject=name, text=f"service {name} is running{for_how_long}"
        )
        often = result.restarts is not None and result.restarts >= OFTEN
        recent = result.uptime is not None and result.uptime < RECENT_SECONDS
        if often or recent:
            parts = []
            if recent and result.uptime is not None:
                parts.append(f"service {name} was started {span_text(result.uptime)} ago")
            if often and result.restarts is not None:
                subject = "it" if parts else f"service {name}"
                parts.append(f"{subject} was restarted {counted(result.restarts, 'time')} in ten minutes")
            if result.exit:
                parts.append(f"its process before {_ended(result.exit)}")
            yield Finding(
                kind=FindingKind.SERVICE_RESTARTED,
                subject=name,
                text=", ".join(parts),
                severity=Severity.WARNING,
            )

    def describe(self, arguments: ServiceStatusArguments) -> str:
        """Say what this call would tell."""
        return f"whether service {arguments.service} is running, and how its last process ended"


def _why(result: ServiceStatusResult) -> str:
    ago = "" if result.seconds is None else f" {span_text(result.seconds)} ago"
    how = f", {result.exit}" if result.exit else ""
    if result.state is RunState.STARTING:
        times = f" ({counted(result.restarts, 'restart')} in ten minutes)" if result.restarts else ""
        before = f", its process before {_ended(result.exit)}" if result.exit else ""
        return f"it is being started{times}{before}"
    if result.state is RunState.UNKNOWN:
        return "it is being stopped, or its supervisor does not know"
    if not ago and not how:
        return "it was not started"
    return f"it {'exited' if result.state is RunState.FAILED else 'stopped'}{ago}{how}"


def _ended(how: str) -> str:
    return f"was {how}" if how.startswith("killed") else f"ended with {how}"
