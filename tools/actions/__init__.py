"""Actions: what Watchkeeper can change, each with a plan before and a way back after."""

from typing import Any

from watchkeeper.tools.action import Action
from watchkeeper.tools.actions.config import ConfigRestore
from watchkeeper.tools.actions.disk import DiskReclaim
from watchkeeper.tools.actions.job import JobCancel, JobResume, JobSubmit
from watchkeeper.tools.actions.observed import ObservedAction
from watchkeeper.tools.actions.process import ProcessEnd
from watchkeeper.tools.actions.service import ServiceRestart, ServiceStart, ServiceStop

__all__ = [
    "ConfigRestore",
    "DiskReclaim",
    "JobCancel",
    "JobResume",
    "JobSubmit",
    "ObservedAction",
    "ProcessEnd",
    "ServiceRestart",
    "ServiceStart",
    "ServiceStop",
    "builtin_actions",
]


def builtin_actions() -> tuple[Action[Any], ...]:
    """Return every action that comes with Watchkeeper."""
    return (
        ServiceStart(),
        ServiceStop(),
        ServiceRestart(),
        DiskReclaim(),
        ConfigRestore(),
        ProcessEnd(),
        JobSubmit(),
        JobCancel(),
        JobResume(),
    )
