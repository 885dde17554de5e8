"""Edits of an action from a terminal: which arguments differ, checked as the run itself would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.runs import RunFile
from watchkeeper.runtime.settings import Settings, load_settings
from watchkeeper.runtime.site import Site
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.plugins import load_registry

if TYPE_CHECKING:
    from pydantic import JsonValue

    from watchkeeper.runtime.journal import Journal


def edited_arguments(
    settings: Settings, journal: Journal, approval_id: str, changed: list[str], *, by: str
) -> dict[str, JsonValue]:
    """Return all arguments of an edited action, after planning it and asking the policy of its run.

    Args:
        settings: Of this process; the run's own inventory and policy are used.
        journal: Where the question is.
        approval_id: The question.
        changed: ``NAME=VALUE`` for each argument that differs; values are YAML.
        by: Whose edit it is.

    Raises:
        ApprovalError: If the question is unknown, or the edit is not usable.
        ToolError: If this program does not know the tool, or the arguments are not valid.
    """
    asked = journal.approvals.get(approval_id)
    step = journal.steps.get(asked.step_id)
    kept = RunFile.read(settings.home, asked.incident_id)
    if kept is not None:
        settings = load_settings(inventory=kept.inventory, policy=kept.policy)
    registry = load_registry(settings.tools, settings.log_predictor)
    path = settings.policy_path
    rules = Policy.load(path, registry) if path else Policy.default(registry)
    site = Site(Inventory.load(settings.inventory_path), registry, rules, settings.home)
    changes = Changes(site, journal, requester=asked.requester, approval_ttl=settings.approval_ttl_seconds)
    return changes.check_edit(step.id, step.arguments | parse_changes(changed), by=by)


def parse_changes(changed: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs; values are YAML, so that ``7`` is a number and ``[a, b]`` a list.

    Raises:
        ApprovalError: If one is not such a pair.
    """
    values: dict[str, Any] = {}
    for pair in changed:
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise ApprovalError(f"{pair!r} is not NAME=VALUE: write, for example, service=api")
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise ApprovalError(f"{pair!r}: its value is not YAML: put quotes around it") from error
        # YAML 1.1 takes on, off, yes and no for truth values; whoever types them means the words.
        word = isinstance(value, bool) and text.strip().lower() not in {"true", "false"}
        values[name.strip()] = text.strip() if word else value
    return values
