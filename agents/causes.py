"""Causes: what can be wrong with a server, which findings support it, and what may mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from watchkeeper.tools.findings import FindingKind
from watchkeeper.tools.inventory import HostSpec


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A further step that an action needs to take effect, e.g. a restart after a new configuration."""

    action: str
    arguments: dict[str, Any]


Examination = Callable[[HostSpec, str], tuple[tuple[str, dict[str, Any]], ...]]
"""From the host and a hypothesis' subject to the facts, with arguments, that a remedy needs first."""

FollowUpRule = Callable[[HostSpec, dict[str, Any]], tuple[FollowUp, ...]]
"""From the host and the first step's arguments to the steps that must follow it."""


def _nothing(host: HostSpec, subject: str) -> tuple[tuple[str, dict[str, Any]], ...]:  # noqa: ARG001
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Something that can be wrong.

    Attributes:
        id: Its name.
        text: What it is, continuing "The root cause is that", with ``{subject}`` where its subject stands.
        supported_by: Kinds of findings that support it and name its subject.
        strengthened_by: Kinds that support it further but do not name its subject nor suggest it alone.
        requires: Kinds of which at least one of each must have been found, whatever the subject.
        excluded_by: Kinds about the same subject that contradict it.
        of_alerted: Whether its subject can only be the service that the alert names.
        may_follow: Whether it may itself be the consequence of another cause, as a stopped process may be of
            a full disk. Any other cause has its turn first where the alert's own condition shows it.
        gives_way_to: Ids of causes whose remedies change less: where evidence supports one of them too,
            it has its turn before this one. (No file is restored while a stopped process may explain it.)
        remedies: Actions that may mend it; none means that a person must.
        examine: Which facts must be read before a remedy can be filled in.
        follow_up: Which steps must follow a remedy, by the remedy's action.
    """

    id: str
    text: str
    supported_by: tuple[str, ...]
    strengthened_by: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    excluded_by: tuple[str, ...] = ()
    of_alerted: bool = False
    may_follow: bool = False
    gives_way_to: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    examine: Examination = _nothing
    follow_up: tuple[tuple[str, FollowUpRule], ...] = ()

    def steps_after(self, action: str, host: HostSpec, arguments: dict[str, Any]) -> tuple[FollowUp, ...]:
        """Return the steps that must follow one of its remedies."""
        for name, rule in self.follow_up:
            if name == action:
                return rule(host, arguments)
        return ()


def restart_owners(host: HostSpec, arguments: dict[str, Any]) -> tuple[FollowUp, ...]:
    """Restart the services that read a configuration file, so that they read it again."""
    path = str(arguments.get("path", ""))
    return tuple(
        FollowUp("service.restart", {"service": service.name})
        for service in host.services
        if any(str(file) == path for file in service.config)
    )


def largest_files(host: HostSpec, subject: str) -> tuple[tuple[str, dict[str, Any]], ...]:  # noqa: ARG001
    """Look what fills a file system."""
    return (("disk.largest", {"path": subject}),)


def heaviest_processes(host: HostSpec, subject: str) -> tuple[tuple[str, dict[str, Any]], ...]:  # noqa: ARG001
    """Look which processes use most."""
    return (("process.list", {}),)


def holders_of_ports(host: HostSpec, subject: str) -> tuple[tuple[str, dict[str, Any]], ...]:  # noqa: ARG001
    """Look which processes hold the ports on which checks rely."""
    return (("socket.list", {}),)


PROCESS_STOPPED = Cause(
    id="process-stopped",
    text="service {subject} was killed or stopped",
    supported_by=(FindingKind.SERVICE_NOT_RUNNING,),
    may_follow=True,
    remedies=("service.start", "service.restart"),
)
PROCESS_HUNG = Cause(
    id="process-hung",
    text="service {subject} runs but hangs",
    supported_by=(FindingKind.SERVICE_RUNNING, FindingKind.SERVICE_RESTARTED),
    requires=(FindingKind.CHECK_FAILING,),
    excluded_by=(FindingKind.SERVICE_NOT_RUNNING,),
    of_alerted=True,
    may_follow=True,
    remedies=("service.restart",),
)
DISK_FULL = Cause(
    id="disk-full",
    text="the file system {subject} is full",
    supported_by=(FindingKind.FILESYSTEM_FULL, FindingKind.FILESYSTEM_FILLING),
    strengthened_by=(FindingKind.LOG_NO_SPACE, FindingKind.LARGE_FILE),
    remedies=("disk.reclaim",),
    examine=largest_files,
)
CONFIG_BROKEN = Cause(
    id="config-broken",
    text="the new configuration file {subject} is wrong",
    supported_by=(FindingKind.CONFIG_CHANGED, FindingKind.CONFIG_INVALID),
    strengthened_by=(FindingKind.LOG_CONFIG_ERROR,),
    gives_way_to=("process-stopped",),
    remedies=("config.restore",),
    follow_up=(("config.restore", restart_owners),),
)
MEMORY_EXHAUSTED = Cause(
    id="memory-exhausted",
    text="the memory of {subject} is used up",
    supported_by=(FindingKind.MEMORY_LOW,),
    strengthened_by=(FindingKind.LOG_MEMORY, FindingKind.PROCESS_HEAVY),
    remedies=("service.restart", "process.end"),
    examine=heaviest_processes,
)
CPU_SATURATED = Cause(
    id="cpu-saturated",
    text="the processors of {subject} are busy",
    supported_by=(FindingKind.CPU_BUSY,),
    strengthened_by=(FindingKind.PROCESS_HEAVY,),
    gives_way_to=("process-stopped", "process-hung", "config-broken", "disk-full"),
    remedies=("process.end", "service.restart"),
    examine=heaviest_processes,
)
DEPENDENCY_DOWN = Cause(
    id="dependency-down",
    text="a dependency of {subject} cannot be reached",
    supported_by=(FindingKind.LOG_CONNECTION,),
    requires=(FindingKind.CHECK_FAILING,),
)
CERTIFICATE_EXPIRED = Cause(
    id="certificate-expired",
    text="the certificate of {subject} has expired",
    supported_by=(FindingKind.CERTIFICATE_EXPIRING, FindingKind.LOG_CERTIFICATE),
)
PORT_TAKEN = Cause(
    id="port-taken",
    text="the port of service {subject} is taken",
    supported_by=(FindingKind.LOG_PORT_TAKEN,),
    remedies=("process.end",),
    examine=holders_of_ports,
)
JOB_CRASHED = Cause(
    id="job-crashed",
    text="the process of training job {subject} was killed or failed",
    supported_by=(FindingKind.JOB_CRASHED,),
    may_follow=True,
    remedies=("job.resume",),
)
JOB_WRONG = Cause(
    id="job-wrong",
    text="training job {subject} cannot end well as it is",
    supported_by=(FindingKind.JOB_FAILED,),
    excluded_by=(FindingKind.JOB_CRASHED,),
    may_follow=True,
)
NOTHING_WRONG = Cause(
    id="nothing-wrong",
    text="the check passes again, so nothing is wrong",
    supported_by=(FindingKind.CHECK_PASSING,),
    excluded_by=(FindingKind.CHECK_FAILING,),
)
BUILTIN_CAUSES = (
    PROCESS_STOPPED,
    PROCESS_HUNG,
    DISK_FULL,
    CONFIG_BROKEN,
    MEMORY_EXHAUSTED,
    CPU_SATURATED,
    DEPENDENCY_DOWN,
    CERTIFICATE_EXPIRED,
    PORT_TAKEN,
    JOB_CRASHED,
    JOB_WRONG,
    NOTHING_WRONG,
)
