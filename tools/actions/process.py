"""Ending a process: there is no way back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Annotated, ClassVar

import psutil
from pydantic import Field

from watchkeeper.tools.action import ActionPlan, Outcome, ProbeAnswer, Reversibility, Verification
from watchkeeper.tools.actions.observed import ObservedAction
from watchkeeper.tools.errors import ApplyError, CollectError, DriftError, PlanError
from watchkeeper.tools.fact import Arguments, Raw
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import Supervisord
from watchkeeper.tools.schema import known
from watchkeeper.tools.supervisord import SupervisordService
from watchkeeper.tools.text import shown_name

GRACE_SECONDS = 10.0
KILL_SECONDS = 5.0
START_TOLERANCE_SECONDS = 2.0
_KTHREADD = 2
_SUPERVISORS = frozenset(
    {"init", "systemd", "supervisord", "runit", "runsvdir", "runsv", "s6-svscan", "s6-supervise", "monit"}
    | {"launchd", "openrc-init", "tini", "dumb-init", "containerd", "containerd-shim", "dockerd", "crio"}
    | {"kubelet", "sshd"}
)


class ProcessArguments(Arguments):
    """Which process: its number and its start in one value, so that they cannot be taken from two places."""

    process: Annotated[
        str,
        Field(pattern=r"^[1-9][0-9]{0,9}@[0-9]{1,12}(\.[0-9]{1,6})?$"),
        known(
            "process",
            description="process as NUMBER@START, with its start in seconds since 1970 (see process.list)",
        ),
    ]

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self.process.partition("@")[0])

    @property
    def start_time(self) -> float:
        """When it was started, in seconds since 1970."""
        return float(self.process.partition("@")[2])


class ProcessEnd(ObservedAction[ProcessArguments]):
    """End a process: SIGTERM, and SIGKILL if it does not end within a grace time.

    A process is known by its number, the time of its start and the boot it belongs to, so that another
    process that got its number is never touched.
    """

    name: ClassVar[str] = "process.end"
    version: ClassVar[int] = 2  # number and start were two arguments
    summary: ClassVar[str] = "end a process for good"
    reversibility: ClassVar[Reversibility] = Reversibility.IRREVERSIBLE
    arguments_type = ProcessArguments

    def observe(self, target: Target, arguments: ProcessArguments) -> Raw:
        """Look at the process and at those that must not be ended.

        Raises:
            PlanError: If the host is another machine.
        """
        if not target.host.is_local:
            raise PlanError(f"processes of host {target.host.name!r} can be ended from that host alone")
        seen: Raw = {
            "boot": _boot(),
            "own": [os.getpid(), *(p.pid for p in psutil.Process().parents())],
            "supervisors": [*_supervisor_pids(target)],
            "process": None,
        }
        try:
            process = psutil.Process(arguments.pid)
            with process.oneshot():
                if process.status() != psutil.STATUS_ZOMBIE:
                    seen["process"] = {
                        "name": process.name(),
                        "ticks": _start_ticks(arguments.pid),
                        "start_time": process.create_time(),
                        "ppid": process.ppid(),
                        "user": process.username(),
                        "command_names": [Path(part).name for part in process.cmdline()[:3]],
                    }
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            seen["process"] = None
        except psutil.AccessDenied as error:
            raise PlanError(f"process {arguments.pid} may not be looked at by this user") from error
        return seen

    def plan_from(self, raw: Raw, arguments: ProcessArguments, *, key: str) -> ActionPlan:
        """Say which process would be ended.

        Raises:
            PlanError: If it must not be ended.
        """
        pid = arguments.pid
        process = raw["process"]
        if not isinstance(process, dict):
            return ActionPlan(key=key, summary=f"process {pid} has ended already")
        name = shown_name(str(process["name"]))
        start_time = float(str(process["start_time"]))
        if abs(start_time - arguments.start_time) > START_TOLERANCE_SECONDS:
            return ActionPlan(
                key=key,
                summary=f"process {pid} of that start has ended already; another one has its number",
            )
        reason = _refusal(raw, pid, process)
        if reason:
            raise PlanError(f"process {pid} ({name}) must not be ended: {reason}")
        identity: Raw = {"pid": pid, "ticks": process["ticks"], "boot": raw["boot"], "name": name}
        return ActionPlan(
            key=key,
            summary=f"end process {pid} ({name}) of user {shown_name(str(process['user']))} for good",
            diff=f"process {pid} ({name}): running -> ended\n",
            preconditions=identity,
            details={**identity, "grace_seconds": GRACE_SECONDS},
            risk="this cannot be undone: the process, its unsaved work and its connections do not come back; "
            f"if it does not end within {GRACE_SECONDS:g} s it is killed",
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:  # noqa: ARG002 (the plan names it)
        """Send SIGTERM, wait, and send SIGKILL if need be.

        Raises:
            DriftError: If the process is gone, or its number belongs to another one now.
            ApplyError: If it may not be signalled or does not end.
        """
        pid, name = int(str(plan.details["pid"])), plan.details["name"]
        gone = f"process {pid} ({name}) has ended since the plan was made"
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise DriftError(gone) from error
        try:
            # The handle names one process for good; the identity is read after it was opened, so what
            # is checked is what will be signalled.
            if not _is_alive(plan):
                raise DriftError(gone)
            with_what = _end(handle, float(str(plan.details["grace_seconds"])))
        except ProcessLookupError:
            with_what = "before it was told to"
        except PermissionError as error:
            raise ApplyError(f"process {pid} ({name}) may not be ended by this user") from error
        finally:
            os.close(handle)
        if not with_what:
            raise ApplyError(
                f"process {pid} ({name}) was killed and has not ended after {KILL_SECONDS:g} s: it waits for "
                "the kernel (a disk or a network file system that does not answer)"
            )
        return Outcome(detail=f"process {pid} ({name}) ended {with_what}", changed=(f"process {pid}",))

    def verify(self, target: Target, plan: ActionPlan) -> Verification:  # noqa: ARG002 (the plan names it)
        """Look whether it is gone."""
        alive = _is_alive(plan)
        return Verification(
            ok=not alive,
            detail=f"process {plan.details['pid']} ({plan.details['name']}) "
            + ("is still running" if alive else "has ended"),
        )

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:  # noqa: ARG002 (the plan names it)
        """Look whether it is gone (by whoever's doing: the effect is there).

        One that was told to end may still be about to, so it is given its grace before it counts as alive.
        """
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(int(str(plan.details["pid"])))
            try:
                if _is_alive(plan):
                    _wait(handle, float(str(plan.details["grace_seconds"])))
            finally:
                os.close(handle)
        return ProbeAnswer.NOT_DONE if _is_alive(plan) else ProbeAnswer.DONE


def _end(handle: int, grace: float) -> str:
    signal.pidfd_send_signal(handle, signal.SIGTERM)
    if _wait(handle, grace):
        return "after SIGTERM"
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    return (
        f"after SIGKILL: it did not end within {grace:g} s of SIGTERM" if _wait(handle, KILL_SECONDS) else ""
    )


def _wait(handle: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _refusal(raw: Raw, pid: int, process: Raw) -> str:
    own, supervisors = raw["own"], raw["supervisors"]
    if pid == 1:
        return "it is the first process of the system"
    if pid == _KTHREADD or process["ppid"] == _KTHREADD:
        return "it is a thread of the kernel"
    if isinstance(own, list) and pid in own:
        return "it is Watchkeeper itself, or a process that Watchkeeper runs in"
    if isinstance(supervisors, list) and pid in supervisors:
        return "it is the supervisor of services in the inventory; stop the service instead"
    commands = process["command_names"]
    names = {str(process["name"]), *(map(str, commands) if isinstance(commands, list) else ())}
    found = sorted(names & _SUPERVISORS) or sorted(n for n in names if n.startswith("supervisor."))
    return f"it supervises other processes or lets people in ({found[0]})" if found else ""


def _supervisor_pids(target: Target) -> list[int]:
    sockets = {s.supervisor.socket for s in target.spec.services if isinstance(s.supervisor, Supervisord)}
    pids = []
    for socket in sorted(sockets):
        try:
            pids.append(SupervisordService(socket, "").supervisor_pid())
        except CollectError:
            continue  # it is not running, so it cannot be the process in question
    return pids


def _is_alive(plan: ActionPlan) -> bool:
    """Whether the very process of the plan exists and has not ended (a zombie has)."""
    pid = int(str(plan.details["pid"]))
    try:
        return _boot() == plan.details["boot"] and _start_ticks(pid) == plan.details["ticks"]
    except (FileNotFoundError, ProcessLookupError):
        return False


def _start_ticks(pid: int) -> int:
    """Return the start of a process in clock ticks since boot, field 22 of proc_pid_stat(5).

    Raises:
        FileNotFoundError: If there is no such process, or it has ended and waits for its parent.
        ProcessLookupError: Likewise.
    """
    fields = (
        Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    )
    if fields[0] in ("Z", "X"):
        raise ProcessLookupError(pid)
    return int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
