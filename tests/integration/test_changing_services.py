"""A real supervisord: services are seen, started, stopped and restarted, and brought back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.killing import killed_at
from tests.supervised import SLEEPER, supervising, wait_for
from watchkeeper.tools.action import Action, ActionPlan, ProbeAnswer, Reversibility
from watchkeeper.tools.actions import ProcessEnd, ServiceRestart, ServiceStart, ServiceStop, service
from watchkeeper.tools.archive import ConfigArchive, record_good_configs
from watchkeeper.tools.errors import (
    ApplyError,
    CollectError,
    DriftError,
    InventoryError,
    PlanError,
    RollbackError,
)
from watchkeeper.tools.facts.service import ServiceStatus
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import HostSpec, Service, Supervisord, Systemd
from watchkeeper.tools.supervisord import SupervisordService
from watchkeeper.tools.supervisors import RunState, ServiceState, supervisor_of
from watchkeeper.tools.text import process_identity

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
PROGRAMS = {
    "web": (SLEEPER, "autorestart=true\nstartsecs=0"),
    "quiet": (SLEEPER, "autostart=false\nautorestart=false\nstartsecs=0"),
    "dies": (
        "import sys, time; time.sleep(0.3); sys.exit(3)",
        "autostart=false\nautorestart=false\nstartsecs=0",
    ),
    "hopeless": ("import sys; sys.exit(1)", "autostart=false\nstartretries=1"),
    "stubborn": (STUBBORN, "startsecs=0\nstopwaitsecs=1"),
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # A UNIX socket's path may have 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="wk") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def supervisord(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with supervising(folder, PROGRAMS) as process:
        yield process


@pytest.fixture
def target(folder: Path, supervisord: subprocess.Popen[bytes], tmp_path: Path) -> Iterator[Target]:
    way = Supervisord(kind="supervisord", socket=folder / "s.sock")
    names = [*PROGRAMS, "missing", "unknown"]
    config = (tmp_path / "app.json",)
    services = tuple(Service(name=n, supervisor=way, config=config if n == "web" else ()) for n in names)
    target = Target(LocalHost("here"), HostSpec(name="here", services=services), tmp_path / "state")
    supervisor_of(target, "web").start()
    for name in ("quiet", "dies", "hopeless"):
        supervisor_of(target, name).stop()
    wait_for(lambda: state(target, "web").state is RunState.RUNNING)
    yield target
    assert supervisord.poll() is None


def state(target: Target, name: str) -> ServiceState:
    return supervisor_of(target, name).status()


def plan_for(action: Action[Any], target: Target, name: str) -> ActionPlan:
    plan = action.plan(target, action.parse_arguments({"service": name}), key="k")
    return ActionPlan.model_validate_json(plan.model_dump_json())


def findings(target: Target, name: str) -> list[str]:
    fact = ServiceStatus()
    arguments = fact.parse_arguments({"service": name})
    return [
        f.text for f in fact.findings(fact.interpret(fact.collect(target, arguments), arguments), arguments)
    ]


def test_a_process_that_is_killed_is_told_with_its_signal_and_its_successor(target: Target) -> None:
    before = state(target, "web")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: state(target, "web").pid not in (None, before.pid))
    wait_for(lambda: state(target, "web").state is RunState.RUNNING)
    after = state(target, "web")
    assert after.exit == "killed by signal 9"
    assert after.restarts is not None
    assert after.restarts >= 1
    assert any("its process before was killed by signal 9" in text for text in findings(target, "web"))


def test_a_service_that_ended_is_told_with_its_status(target: Target) -> None:
    supervisor_of(target, "dies").start()
    wait_for(lambda: state(target, "dies").state is RunState.FAILED)
    assert state(target, "dies").exit == "exit status 3"
    (text,) = findings(target, "dies")
    assert text.startswith("service dies is not running: it exited ")
    assert text.endswith(" ago, exit status 3")


def test_start_starts_and_rollback_stops_again(target: Target) -> None:
    action = ServiceStart()
    plan = plan_for(action, target, "quiet")
    assert plan.diff == "service quiet: stopped -> running\n"
    assert action.probe(target, plan) is ProbeAnswer.NOT_DONE
    action.apply(target, plan)
    assert action.verify(target, plan).ok
    assert action.probe(target, plan) is ProbeAnswer.DONE
    assert plan_for(action, target, "quiet").is_empty
    with pytest.raises(DriftError):
        action.apply(target, plan)
    action.rollback(target, plan)
    assert state(target, "quiet").is_down
    assert action.rollback(target, plan).changed == ()


def test_stop_stops_and_rollback_starts_again(target: Target) -> None:
    action = ServiceStop()
    plan = plan_for(action, target, "web")
    assert action.probe(target, plan) is ProbeAnswer.NOT_DONE
    action.apply(target, plan)
    assert action.verify(target, plan).ok
    assert action.probe(target, plan) is ProbeAnswer.DONE
    assert plan_for(action, target, "web").is_empty
    with pytest.raises(DriftError):
        action.apply(target, plan)
    assert action.rollback(target, plan).changed == ("web",)
    assert state(target, "web").is_up
    assert action.rollback(target, plan).changed == ()


def test_restart_gives_a_new_process_and_says_what_does_not_come_back(target: Target) -> None:
    action = ServiceRestart()
    plan = plan_for(action, target, "web")
    before = state(target, "web").pid
    assert action.reversibility is Reversibility.COMPENSABLE
    assert "do not come back" in plan.risk
    assert action.probe(target, plan) is ProbeAnswer.NOT_DONE
    action.apply(target, plan)
    assert action.verify(target, plan).ok
    assert state(target, "web").pid != before
    assert action.probe(target, plan) is ProbeAnswer.DONE
    assert action.rollback(target, plan).changed == ()
    assert state(target, "web").is_up


def test_restart_of_a_stopped_service_starts_it_and_rollback_stops_it_again(target: Target) -> None:
    action = ServiceRestart()
    plan = plan_for(action, target, "quiet")
    action.apply(target, plan)
    assert action.verify(target, plan).ok
    action.rollback(target, plan)
    assert state(target, "quiet").is_down


@pytest.mark.crash
@pytest.mark.parametrize("action", [ServiceStart(), ServiceStop(), ServiceRestart()], ids=lambda a: a.name)
def test_a_change_killed_at_any_line_can_be_judged_and_undone(target: Target, action: Action[Any]) -> None:
    name = "quiet" if isinstance(action, ServiceStart) else "web"
    files = frozenset({str(service.__file__)})
    answers = []
    line, died = 0, True
    while died:
        line += 1
        before = state(target, name)
        plan = plan_for(action, target, name)
        died = killed_at(line, files, lambda: action.apply(target, plan))  # noqa: B023 (called at once)
        answers.append(action.probe(target, plan))
        after = state(target, name)
        if answers[-1] is ProbeAnswer.NOT_DONE:
            assert (after.pid, after.is_up) == (before.pid, before.is_up)
        action.rollback(target, plan)
        assert state(target, name).is_up == before.is_up
    assert answers[0] is ProbeAnswer.NOT_DONE
    assert answers[-1] is ProbeAnswer.DONE
    assert line > 5


def test_a_restart_that_stopped_and_did_not_start_is_unknown_and_rollback_starts(target: Target) -> None:
    action = ServiceRestart()
    plan = plan_for(action, target, "web")
    supervisor_of(target, "web").stop()
    assert action.probe(target, plan) is ProbeAnswer.UNKNOWN
    assert not action.verify(target, plan).ok
    action.rollback(target, plan)
    assert state(target, "web").is_up


def test_a_service_that_does_not_stay_up_fails_verification(target: Target) -> None:
    action = ServiceStart()
    plan = plan_for(action, target, "dies")
    action.apply(target, plan)
    verification = action.verify(target, plan)
    assert not verification.ok
    assert "exit status 3" in verification.detail
    assert action.probe(target, plan) is ProbeAnswer.DONE
    action.rollback(target, plan)
    assert state(target, "dies").is_down


def test_a_service_that_gives_up_is_failed_and_told_so(target: Target) -> None:
    supervisor_of(target, "hopeless").start()
    wait_for(lambda: state(target, "hopeless").state is RunState.FAILED)
    assert state(target, "hopeless").exit == "exit status 1"


def test_a_process_that_ignores_the_request_to_stop_is_waited_for(target: Target) -> None:
    wait_for(lambda: state(target, "stubborn").is_up)
    time.sleep(0.3)
    action = ServiceStop()
    plan = plan_for(action, target, "stubborn")
    action.apply(target, plan)
    assert state(target, "stubborn").state is RunState.STOPPED
    assert state(target, "stubborn").exit == "killed by signal 9"
    action.rollback(target, plan)


def test_how_long_a_service_may_take_to_end_stands_in_the_inventory(target: Target) -> None:
    wait_for(lambda: state(target, "stubborn").is_up)
    time.sleep(0.3)
    services = tuple(one.model_copy(update={"stop_seconds": 0.2}) for one in target.spec.services)
    hasty = Target(target.host, target.spec.model_copy(update={"services": services}), target.state)
    action = ServiceStop()
    plan = plan_for(action, target, "stubborn")
    with pytest.raises(ApplyError, match=r"after 0\.2 s still: give it a longer stop_seconds"):
        action.apply(hasty, plan)
    wait_for(lambda: state(target, "stubborn").is_down)
    action.rollback(target, plan)


def test_a_program_that_cannot_be_found_is_an_error_with_its_reason(target: Target) -> None:
    action = ServiceStart()
    plan = plan_for(action, target, "missing")
    with pytest.raises(ApplyError, match=r"program 'missing': its command was not found"):
        action.apply(target, plan)


def test_names_that_nobody_knows_are_told(target: Target) -> None:
    with pytest.raises(PlanError, match="has no program 'unknown'"):
        plan_for(ServiceStart(), target, "unknown")
    with pytest.raises(InventoryError, match="'other' is not on host"):
        plan_for(ServiceStart(), target, "other")


def test_a_missing_socket_and_one_that_nobody_serves_are_told(tmp_path: Path, folder: Path) -> None:
    way = Supervisord(kind="supervisord", socket=folder / "other.sock")
    spec = HostSpec(name="here", services=(Service(name="web", supervisor=way),))
    target = Target(LocalHost("here"), spec, tmp_path)
    with pytest.raises(CollectError, match="does not exist: is supervisord running"):
        state(target, "web")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.bind(str(folder / "other.sock"))
        with pytest.raises(CollectError, match="supervisord has ended"):
            state(target, "web")


def test_a_supervisor_that_hangs_does_not_hang_us(tmp_path: Path, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.bind(str(folder / "hangs.sock"))
        peer.listen()
        started = time.monotonic()
        with pytest.raises(CollectError, match=r"did not answer getProcessInfo within 0.3 s"):
            SupervisordService(folder / "hangs.sock", "web", timeout=0.3).status()
        assert time.monotonic() - started < 5


def test_configuration_counts_as_good_only_if_the_running_process_has_read_it(target: Target) -> None:
    (path,) = target.spec.service("web").config
    path.write_text('{"port": 80}')
    archive = ConfigArchive.of(target)
    time.sleep(1.1)  # supervisord tells the start in whole seconds
    supervisor_of(target, "web").restart()
    wait_for(lambda: state(target, "web").state is RunState.RUNNING)
    assert record_good_configs(target, "web", now=datetime.now(UTC)) == (path,)
    good = archive.last_good(path)
    time.sleep(2.1)
    path.write_text('{"port": 81}')
    assert record_good_configs(target, "web") == ()
    assert archive.last_good(path) == good
    path.write_text('{"port": ')
    supervisor_of(target, "web").restart()
    assert record_good_configs(target, "web") == ()
    assert record_good_configs(target, "quiet") == ()


@pytest.mark.skipif(
    not Path("/run/systemd/system").is_dir(), reason="systemd is not the first process of this machine"
)
def test_systemd_tells_the_state_of_its_own_journal(tmp_path: Path) -> None:
    unit = Service(name="journal", supervisor=Systemd(kind="systemd", unit="systemd-journald.service"))
    target = Target(LocalHost("here"), HostSpec(name="here", services=(unit,)), tmp_path)
    assert state(target, "journal").state is RunState.RUNNING


def process_plan(target: Target, pid: int, start_time: float | None = None) -> ActionPlan:
    action = ProcessEnd()
    started = psutil.Process(pid).create_time() if start_time is None else start_time
    values = {"process": process_identity(pid, started)}
    plan = action.plan(target, action.parse_arguments(values), key="k")
    return ActionPlan.model_validate_json(plan.model_dump_json())


def child_process(script: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", f"{script}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_ends_for_good_and_there_is_no_way_back(target: Target) -> None:
    action = ProcessEnd()
    with child_process("import time; print('ready', flush=True); time.sleep(600)") as process:
        plan = process_plan(target, process.pid)
        assert action.reversibility is Reversibility.IRREVERSIBLE
        assert "cannot be undone" in plan.risk
        short = plan.model_copy(update={"details": {**plan.details, "grace_seconds": 0.1}})
        assert action.probe(target, short) is ProbeAnswer.NOT_DONE
        assert not action.verify(target, plan).ok
        assert "after SIGTERM" in action.apply(target, plan).detail
        assert process.wait() == -signal.SIGTERM
        assert action.verify(target, plan).ok
        assert action.probe(target, plan) is ProbeAnswer.DONE
        with pytest.raises(DriftError):
            action.apply(target, plan)
        with pytest.raises(RollbackError, match="no way back"):
            action.rollback(target, plan)


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(target: Target) -> None:
    script = f"import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); {SLEEPER}"
    with child_process(script) as process:
        plan = process_plan(target, process.pid)
        short = plan.model_copy(update={"details": {**plan.details, "grace_seconds": 0.3}})
        assert "after SIGKILL" in ProcessEnd().apply(target, short).detail
        assert process.wait() == -signal.SIGKILL


def test_a_process_that_was_told_to_end_and_is_about_to_counts_as_ended(target: Target) -> None:
    script = (
        "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.5), sys.exit())); "
        f"print('ready', flush=True); {SLEEPER}"
    )
    with child_process(script) as process:
        plan = process_plan(target, process.pid)
        # A crash came right after the signal.
        process.send_signal(signal.SIGTERM)
        assert ProcessEnd().probe(target, plan) is ProbeAnswer.DONE


@pytest.mark.parametrize("field", ["ticks", "boot"])
def test_another_process_with_the_same_number_is_not_touched(target: Target, field: str) -> None:
    with child_process("import time; print('ready', flush=True); time.sleep(600)") as process:
        plan = process_plan(target, process.pid)
        other = plan.model_copy(update={"details": {**plan.details, field: "another"}})
        with pytest.raises(DriftError, match="has ended since"):
            ProcessEnd().apply(target, other)
        assert ProcessEnd().probe(target, other) is ProbeAnswer.DONE
        assert process.poll() is None
        process.kill()


def test_what_must_not_end_is_refused(target: Target, supervisord: subprocess.Popen[bytes]) -> None:
    for pid in (1, os.getpid(), os.getppid(), supervisord.pid):
        with pytest.raises(PlanError, match="must not be ended"):
            process_plan(target, pid)
    assert process_plan(target, os.getpid(), start_time=1.0).is_empty
