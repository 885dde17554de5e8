"""Watchkeeper: IT operations by agents that never leave the building.

The names below are the public Python API; each is imported when it is first used, so that importing the
package (and asking the command line for help) costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watchkeeper.agents import Agent as Agent
    from watchkeeper.agents import AgentRole as AgentRole
    from watchkeeper.agents import Cause as Cause
    from watchkeeper.models import open_engine as open_engine
    from watchkeeper.models.scripted import RandomEngine as RandomEngine
    from watchkeeper.models.scripted import ScriptedEngine as ScriptedEngine
    from watchkeeper.runtime.alerts import Alert as Alert
    from watchkeeper.runtime.orchestrator import Orchestrator as Orchestrator
    from watchkeeper.runtime.policy import Policy as Policy
    from watchkeeper.runtime.settings import Settings as Settings
    from watchkeeper.tools.action import ActionPlan as ActionPlan
    from watchkeeper.tools.action import Outcome as Outcome
    from watchkeeper.tools.action import ProbeAnswer as ProbeAnswer
    from watchkeeper.tools.action import Reversibility as Reversibility
    from watchkeeper.tools.action import Verification as Verification
    from watchkeeper.tools.define import action as action
    from watchkeeper.tools.define import fact as fact
    from watchkeeper.tools.fact import Result as Result
    from watchkeeper.tools.findings import Finding as Finding
    from watchkeeper.tools.findings import Severity as Severity
    from watchkeeper.tools.host import Target as Target
    from watchkeeper.tools.inventory import Inventory as Inventory

_HOMES = {
    "ActionPlan": "tools.action",
    "Agent": "agents",
    "AgentRole": "agents",
    "Alert": "runtime.alerts",
    "Cause": "agents",
    "Finding": "tools.findings",
    "Inventory": "tools.inventory",
    "Orchestrator": "runtime.orchestrator",
    "Outcome": "tools.action",
    "Policy": "runtime.policy",
    "ProbeAnswer": "tools.action",
    "RandomEngine": "models.scripted",
    "Result": "tools.fact",
    "Reversibility": "tools.action",
    "ScriptedEngine": "models.scripted",
    "Settings": "runtime.settings",
    "Severity": "tools.findings",
    "Target": "tools.host",
    "Verification": "tools.action",
    "action": "tools.define",
    "fact": "tools.define",
    "open_engine": "models",
}

__version__ = "0.1.0"
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
