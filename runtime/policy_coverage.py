"""Coverage of a policy: which rules could answer for every action on every host, without running anything."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_evaluation import ERROR, MATCHED, NOT_MATCHED
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.registry import Registry


class Covered(StrEnum):
    """How sure it is that a rule answers, and not the default.

    ``ALWAYS``: some rule holds for all arguments at all moments.
    ``SOMETIMES``: rules hold for some arguments or at some moments; the rest is denied by default.
    ``NEVER``: no rule can hold: it is denied by default only.
    """

    ALWAYS = "always"
    SOMETIMES = "sometimes"
    NEVER = "never"


class Coverage(BaseModel):
    """Which rules could answer for one action on one host.

    Attributes:
        action: Registered name.
        host: Where.
        covered: How sure it is that a rule answers.
        rules: Names of the rules that could.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: str
    host: str
    covered: Covered
    rules: tuple[str, ...] = ()


def coverage(policy: Policy, registry: Registry, inventory: Inventory) -> tuple[Coverage, ...]:
    """Say of every action on every host which rules could answer.

    Nothing is left out: what no rule could answer is denied by default, and that is a decision, too, but
    seldom the one that was meant.
    """
    return tuple(
        _coverage(policy, registry, inventory, action, host)
        for action in sorted(tool.name for tool in registry.actions)
        for host in sorted(spec.name for spec in inventory)
    )


def _coverage(policy: Policy, registry: Registry, inventory: Inventory, action: str, host: str) -> Coverage:
    foreseen = {
        compiled.rule.name: compiled.foresee(registry.action(action), inventory.host(host), {})
        for compiled in policy.compiled
    }
    rules = tuple(name for name, outcome in foreseen.items() if outcome != NOT_MATCHED)
    if not rules:
        covered = Covered.NEVER
    elif {MATCHED, ERROR} & set(foreseen.values()):
        covered = Covered.ALWAYS
    else:
        covered = Covered.SOMETIMES
    return Coverage(action=action, host=host, covered=covered, rules=rules)
