"""What keeps services running: their state as one type, and the supervisors that are asked for it."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.errors import ApplyError, CollectError
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import Supervisord

POLL_SECONDS = 0.05
HOPELESS_SECONDS = 2.0
RESTART_WINDOW = timedelta(minutes=10)


class RunState(StrEnum):
    """How far a service is from running.

    ``FAILED`` ended by itself and is not tried again; ``STARTING`` is on its way, or being tried again
    and again; ``UNKNOWN`` is neither up nor down at this moment, e.g. while it is being stopped.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    STARTING = "starting"
    UNKNOWN = "unknown"


class ServiceState(BaseModel):
    """State of one service, as its supervisor sees it.

    Attributes:
        state: How far it is from running.
        pid: Its main process, while it has one.
        started: When its latest process was started.
        since: When it came into this state.
        exit: How its latest ended process ended, e.g. ``killed by signal 9`` or ``exit status 1``; empty
            if none ended or that is not known. Made of numbers and fixed words only.
        restarts: How often within the last ten minutes a process of it ended by itself and was followed by
            another; None if not known.
        now: When the supervisor answered (its clock).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: RunState
    pid: int | None = None
    started: datetime | None = None
    since: datetime | None = None
    exit: str = ""
    restarts: int | None = None
    now: datetime

    @property
    def is_up(self) -> bool:
        """Whether it runs, or its supervisor is trying to make it run."""
        return self.state in (RunState.RUNNING, RunState.STARTING)

    @property
    def is_down(self) -> bool:
        """Whether it does not run, and will not unless someone starts it."""
        return self.state in (RunState.STOPPED, RunState.FAILED)

    @property
    def seconds(self) -> float | None:
        """How long it has been in this state."""
        return None if self.since is None else max(0.0, (self.now - self.since).total_seconds())

    @property
    def uptime(self) -> float | None:
        """How long its process has been running; None if it is not."""
        if self.state is not RunState.RUNNING or self.started is None:
            return None
        return max(0.0, (self.now - self.started).total_seconds())


class Supervisor(Protocol):
    """The way to one service of one host."""

    def status(self) -> ServiceState:
        """Return its state.

        Raises:
            CollectError: If the supervisor cannot be asked or does not know the service.
        """
        ...

    def start(self) -> None:
        """Have it started; returns when its process was spawned. Nothing happens if it is up.

        Raises:
            CollectError: If the supervisor cannot be asked.
            ApplyError: If the supervisor refuses.
        """
        ...

    def stop(self) -> None:
        """Have it stopped; returns when it is down. Nothing happens if it is down.

        Raises:
            CollectError: If the supervisor cannot be asked.
            ApplyError: If the supervisor refuses, or it does not end in time.
        """
        ...

    def restart(self) -> None:
        """Stop it if it is up, and start it.

        Raises:
            CollectError: If the supervisor cannot be asked.
            ApplyError: If the supervisor refuses, or it does not end in time.
        """
        ...


def supervisor_of(target: Target, service: str) -> Supervisor:
    """Return the way to a service of the inventory.

    Raises:
        InventoryError: If the host has no such service.
        CollectError: If its supervisor cannot be reached on this host.
    """
    from watchkeeper.tools.supervisord import SupervisordService
    from watchkeeper.tools.systemd import SystemdService

    entry = target.spec.service(service)
    stop_timeout = entry.stop_seconds
    if isinstance(entry.supervisor, Supervisord):
        if not target.host.is_local:
            raise CollectError(
                f"service {service!r}: supervisord listens on a UNIX socket of host {target.host.name!r}, "
                "which can be reached from that host alone; run Watchkeeper there"
            )
        program = entry.supervisor.program or entry.name
        return SupervisordService(entry.supervisor.socket, program, stop_timeout=stop_timeout)
    return SystemdService(target.host, entry.supervisor.unit or entry.name, stop_timeout=stop_timeout)


def wait_until_down(supervisor: Supervisor, name: str, *, timeout: float) -> ServiceState:
    """Wait until a service is down.

    Raises:
        ApplyError: If it is not after ``timeout`` seconds.
    """
    state, down = settle(supervisor, lambda s: s.is_down, timeout=timeout)
    if not down:
        raise ApplyError(
            f"service {name!r} was told to stop and is {state.state} after {timeout:g} s still: give it "
            "a longer stop_seconds in the inventory where it may take longer"
        )
    return state


class Condition(Protocol):
    """Whether a state is the one that is waited for."""

    def __call__(self, state: ServiceState, /) -> bool:
        """Look at one state."""
        ...


def settle(
    supervisor: Supervisor,
    wanted: Condition,
    *,
    timeout: float,
    hold: float = 0.0,
    hopeless: Condition | None = None,
) -> tuple[ServiceState, bool]:
    """Ask until a state is as wanted and stays so for ``hold`` seconds.

    A process that replaces another within ``hold`` starts the time anew: a service that dies and is
    brought back again and again does not count as one that runs.

    Args:
        supervisor: Who is asked.
        wanted: What is waited for.
        timeout: Seconds after which it is given up.
        hold: Seconds that it must stay so.
        hopeless: What ends the wait early if it stays so for two seconds: supervisors take about one
            to bring a process back.

    Returns:
        The last state seen, and whether it was as wanted for long enough.

    Raises:
        CollectError: If the supervisor cannot be asked.
    """
    deadline = time.monotonic() + timeout
    good_since: float | None = None
    bad_since: float | None = None
    identity: tuple[int | None, datetime | None] | None = None
    while True:
        state = supervisor.status()
        moment = time.monotonic()
        if not wanted(state):
            good_since = None
        elif good_since is None or identity != (state.pid, state.started):
            good_since, identity = moment, (state.pid, state.started)
        if good_since is not None and moment - good_since >= hold:
            return state, True
        if hopeless is None or not hopeless(state):
            bad_since = None
        elif bad_since is None:
            bad_since = moment
        if moment >= deadline or (bad_since is not None and moment - bad_since >= HOPELESS_SECONDS):
            return state, False
        time.sleep(POLL_SECONDS)
