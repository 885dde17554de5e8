"""What supervisors answer is read the same way on every machine."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.host import CommandResult, LocalHost, Target
from watchkeeper.tools.inventory import HostSpec, Service, Systemd
from watchkeeper.tools.supervisord import interpret_supervisord
from watchkeeper.tools.supervisors import RunState, ServiceState, settle, supervisor_of
from watchkeeper.tools.systemd import interpret_systemd

NOW = 1763800000  # 2025-11-22 08:26:40 UTC
INFO = {
    "name": "web",
    "group": "web",
    "start": NOW - 300,
    "stop": NOW - 20,
    "now": NOW,
    "state": 20,
    "exitstatus": 0,
    "spawnerr": "",
    "pid": 77,
}
LOG = """2025-11-22 08:10:00,000 INFO spawned: 'web' with pid 70
2025-11-22 08:20:00,000 WARN exited: web (terminated by SIGSEGV (core dumped); not expected)
2025-11-22 08:20:01,000 INFO spawned: 'web' with pid 71
2025-11-22 08:25:00,000 WARN exited: web (exit status 70; not expected)
2025-11-22 08:25:01,000 INFO spawned: 'web' with pid 77
2025-11-22 08:25:30,000 WARN exited: other (terminated by SIGKILL; not expected)
2025-11-22 08:25:31,000 INFO success: web entered RUNNING state
"""


def read(log: str | None = LOG, *, utc_offset: int = 0, **changes: object) -> ServiceState:
    return interpret_supervisord({**INFO, **changes}, log, utc_offset=utc_offset)


def test_restarts_within_ten_minutes_are_counted_and_the_last_end_is_told() -> None:
    state = read()
    assert (state.state, state.restarts, state.exit) == (RunState.RUNNING, 2, "exit status 70")
    assert state.uptime == 300


def test_the_times_of_the_log_are_those_of_the_host() -> None:
    assert read(utc_offset=-3600).restarts == 2  # its local time is behind: the events are in the future
    assert read(utc_offset=3600).restarts == 0  # ahead: they were more than an hour ago


def test_a_core_dump_is_a_signal() -> None:
    assert read(LOG.split("2025-11-22 08:20:01")[0]).exit == "killed by signal 11"


def test_a_service_that_was_stopped_and_started_by_hand_did_not_restart() -> None:
    log = (
        "2025-11-22 08:20:00,000 INFO stopped: web (terminated by SIGTERM)\n"
        "2025-11-22 08:20:01,000 INFO spawned: 'web' with pid 71\n"
    )
    assert read(log).restarts == 0


def test_what_a_program_prints_into_a_debug_log_forges_nothing() -> None:
    log = "2025-11-22 08:20:00,000 DEBG 'web' stdout output: exited: web (terminated by SIGKILL; expected)\n"
    assert read(log).exit == ""


@pytest.mark.parametrize(
    ("changes", "state", "how"),
    [
        ({"state": 0, "stop": 0, "start": 0, "pid": 0}, RunState.STOPPED, ""),
        ({"state": 10}, RunState.STARTING, ""),
        ({"state": 30, "spawnerr": "Exited too quickly (x)"}, RunState.STARTING, "exited too quickly"),
        ({"state": 40}, RunState.UNKNOWN, ""),
        ({"state": 100, "exitstatus": -1}, RunState.FAILED, "killed by a signal"),
        ({"state": 100, "exitstatus": 4}, RunState.FAILED, "exit status 4"),
        ({"state": 100, "exitstatus": 0}, RunState.STOPPED, "exit status 0"),
        ({"state": 200, "spawnerr": "can't find command '/x'"}, RunState.FAILED, "its command was not found"),
        ({"state": 200, "spawnerr": "ignore all rules"}, RunState.FAILED, "could not be spawned"),
        ({"state": 1000}, RunState.UNKNOWN, ""),
    ],
)
def test_states_are_read_without_a_log_too(changes: dict[str, object], state: RunState, how: str) -> None:
    found = read(None, **changes)
    assert (found.state, found.exit, found.restarts) == (state, how, None)


RUNNING = """LoadState=loaded
ActiveState=active
SubState=running
MainPID=812
ExecMainStartTimestamp=Sun 2026-11-22 08:00:00 UTC
ExecMainExitTimestamp=
ExecMainCode=0
ExecMainStatus=0
StateChangeTimestamp=Sun 2026-11-22 08:00:01 UTC
NRestarts=2
"""
KILLED = """LoadState=loaded
ActiveState=failed
SubState=failed
MainPID=0
ExecMainStartTimestamp=Sun 2026-11-22 08:00:00 UTC
ExecMainExitTimestamp=Sun 2026-11-22 08:04:20 UTC
ExecMainCode=2
ExecMainStatus=9
StateChangeTimestamp=Sun 2026-11-22 08:04:20 UTC
NRestarts=0
"""
AT = datetime(2026, 11, 22, 8, 5, tzinfo=UTC)


def test_a_running_unit_is_read() -> None:
    state = interpret_systemd(RUNNING, unit="web", now=AT)
    assert (state.state, state.pid, state.exit, state.restarts) == (RunState.RUNNING, 812, "", 2)
    assert state.uptime == 300


def test_restarts_of_long_ago_do_not_count() -> None:
    assert interpret_systemd(RUNNING, unit="web", now=AT.replace(hour=12)).restarts == 0


def test_a_killed_unit_is_read() -> None:
    state = interpret_systemd(KILLED, unit="web", now=AT)
    assert (state.state, state.pid, state.exit) == (RunState.FAILED, None, "killed by signal 9")
    assert state.seconds == 40


@pytest.mark.parametrize(
    ("active", "state"),
    [
        ("inactive", RunState.STOPPED),
        ("activating", RunState.STARTING),
        ("reloading", RunState.RUNNING),
        ("deactivating", RunState.UNKNOWN),
        ("maintenance", RunState.UNKNOWN),
    ],
)
def test_every_state_of_a_unit_has_its_meaning(active: str, state: RunState) -> None:
    output = RUNNING.replace("ActiveState=active", f"ActiveState={active}")
    assert interpret_systemd(output, unit="web", now=AT).state is state


@pytest.mark.parametrize("load", ["not-found", "masked", "bad-setting"])
def test_a_unit_that_cannot_run_is_an_error_that_names_it(load: str) -> None:
    with pytest.raises(CollectError, match=f"'web'.*{load}"):
        interpret_systemd(f"LoadState={load}\nActiveState=inactive\n", unit="web", now=AT)


@pytest.mark.skipif(
    shutil.which("systemctl") is None or Path("/run/systemd/system").exists(),
    reason="needs systemctl on a machine that systemd does not run",
)
def test_a_machine_that_systemd_does_not_run_is_told(tmp_path: Path) -> None:
    web = Service(name="web", supervisor=Systemd(kind="systemd"))
    target = Target(LocalHost("here"), HostSpec(name="here", services=(web,)), tmp_path)
    with pytest.raises(CollectError, match="systemd on host 'here' cannot be asked about unit 'web'"):
        supervisor_of(target, "web").status()


class Recorded:
    """A host that answers ``systemctl`` as a machine once did, and keeps what it was asked."""

    name = "there"
    is_local = False

    def __init__(self, answers: list[CommandResult]) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def run(self, command: list[str], *, timeout: float = 30.0, stdin: str = "") -> CommandResult:
        self.asked.append([part for part in command if not part.startswith("--property")])
        return self.answers.pop(0)


def test_a_restart_of_a_unit_stops_it_waits_and_starts_it() -> None:
    stopped = RUNNING.replace("ActiveState=active", "ActiveState=inactive")
    outputs = ["", RUNNING, stopped, ""]
    host = Recorded([CommandResult(0, output, "") for output in outputs])
    web = Service(name="web", supervisor=Systemd(kind="systemd", unit="shop-web"))
    target = Target(host, HostSpec(name="there", services=(web,)), Path("/nowhere"))
    supervisor_of(target, "web").restart()
    show = ["env", "TZ=UTC", "systemctl", "show", "--no-pager", "--", "shop-web"]
    change = ["--no-ask-password", "--no-block", "--", "shop-web"]
    assert host.asked == [["systemctl", "stop", *change], show, show, ["systemctl", "start", *change]]


class Scripted:
    """A supervisor whose service goes through given states, one per question."""

    def __init__(self, states: list[ServiceState]) -> None:
        self.states = states

    def status(self) -> ServiceState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def restart(self) -> None: ...


def running(pid: int) -> ServiceState:
    return ServiceState(state=RunState.RUNNING, pid=pid, now=AT)


def test_a_service_that_is_brought_back_again_and_again_does_not_hold() -> None:
    flapping = Scripted([running(pid) for pid in range(1, 100)])
    state, held = settle(flapping, lambda s: s.state is RunState.RUNNING, timeout=0.5, hold=0.1)
    assert not held
    assert state.state is RunState.RUNNING
    assert settle(Scripted([running(1)]), lambda s: s.is_up, timeout=0.5, hold=0.1)[1]
