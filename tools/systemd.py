"""Services of systemd, over ``systemctl`` (systemctl(1), org.freedesktop.systemd1(5))."""

from __future__ import annotations

from datetime import UTC, datetime

from watchkeeper.tools.errors import ApplyError, CollectError
from watchkeeper.tools.host import Host
from watchkeeper.tools.supervisors import RESTART_WINDOW, RunState, ServiceState, wait_until_down

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "ExecMainStartTimestamp",
    "ExecMainExitTimestamp",
    "ExecMainCode",
    "ExecMainStatus",
    "StateChangeTimestamp",
    "NRestarts",
)
_TIME_FORMAT = "%a %Y-%m-%d %H:%M:%S UTC"
_CLD_EXITED, _CLD_KILLED, _CLD_DUMPED = "1", "2", "3"
_STATES = {
    "active": RunState.RUNNING,
    "reloading": RunState.RUNNING,
    "refreshing": RunState.RUNNING,
    "activating": RunState.STARTING,
    "inactive": RunState.STOPPED,
    "failed": RunState.FAILED,
}


class SystemdService:
    """One unit of systemd.

    Args:
        host: Where ``systemctl`` runs.
        unit: Name of the unit (``.service`` may be left out).
        timeout: Seconds that ``systemctl show`` may take.
        stop_timeout: Seconds that the unit may take to start or to end.
    """

    def __init__(self, host: Host, unit: str, *, timeout: float = 5.0, stop_timeout: float = 100.0) -> None:
        self._host = host
        self._unit = unit
        self._timeout = timeout
        self._stop_timeout = stop_timeout

    def status(self) -> ServiceState:
        """Return the unit's state.

        Raises:
            CollectError: If systemd cannot be asked, or there is no such unit.
        """
        # Older systemctl has no --timestamp=unix, but all print in the zone of their environment.
        result = self._host.run(
            [
                "env",
                "TZ=UTC",
                "systemctl",
                "show",
                "--no-pager",
                f"--property={','.join(PROPERTIES)}",
                "--",
                self._unit,
            ],
            timeout=self._timeout,
        )
        if result.status != 0:
            raise CollectError(
                f"systemd on host {self._host.name!r} cannot be asked about unit {self._unit!r}: "
                f"{result.stderr.strip()[:200]!r}"
            )
        return interpret_systemd(result.stdout, unit=self._unit, now=datetime.now(UTC))

    def start(self) -> None:
        """Have the unit started.

        Raises:
            CollectError: If systemd cannot be asked.
            ApplyError: If it refuses.
        """
        self._change("start")

    def stop(self) -> None:
        """Have the unit stopped; returns when it is down.

        Raises:
            CollectError: If systemd cannot be asked.
            ApplyError: If it refuses, or the unit does not end in time.
        """
        self._change("stop")
        wait_until_down(self, self._unit, timeout=self._stop_timeout)

    def restart(self) -> None:
        """Stop the unit if it is up, and start it.

        Raises:
            CollectError: If systemd cannot be asked.
            ApplyError: If it refuses, or the unit does not end in time.
        """
        self.stop()
        self.start()

    def _change(self, verb: str) -> None:
        command = ["systemctl", verb, "--no-ask-password", "--no-block", "--", self._unit]
        result = self._host.run(command, timeout=self._timeout)
        if result.status != 0:
            raise ApplyError(
                f"systemd on host {self._host.name!r} refuses {verb} of unit {self._unit!r}: "
                f"{result.stderr.strip()[:200]!r}; see 'systemctl status {self._unit}'"
            )


def interpret_systemd(output: str, *, unit: str, now: datetime) -> ServiceState:
    """Turn what ``systemctl show`` printed into a state; pure.

    Raises:
        CollectError: If there is no such unit.
    """
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if values.get("LoadState") != "loaded":
        raise CollectError(
            f"systemd has no usable unit {unit!r} (LoadState is {values.get('LoadState', '')!r}): "
            "mend the inventory's 'unit', or the unit's file"
        )
    state = _STATES.get(values.get("ActiveState", ""), RunState.UNKNOWN)
    started = _moment(values.get("ExecMainStartTimestamp", ""))
    return ServiceState(
        state=state,
        pid=int(values.get("MainPID") or 0) or None,
        started=started,
        since=_moment(values.get("StateChangeTimestamp", "")),
        exit=_exit(values),
        restarts=_restarts(values.get("NRestarts", ""), started, now),
        now=now,
    )


def _restarts(count: str, started: datetime | None, now: datetime) -> int | None:
    # systemd counts since a person last started the unit, which may be months ago.
    if not count.isdecimal():
        return None
    return int(count) if started is not None and now - started <= RESTART_WINDOW else 0


def _exit(values: dict[str, str]) -> str:
    code, status = values.get("ExecMainCode", ""), values.get("ExecMainStatus", "")
    if not status.isdecimal() or not values.get("ExecMainExitTimestamp"):
        return ""
    if code in (_CLD_KILLED, _CLD_DUMPED):
        return f"killed by signal {status}"
    return f"exit status {status}" if code == _CLD_EXITED else ""


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
