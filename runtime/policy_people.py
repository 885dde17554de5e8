"""Whether there are people who may say yes to what a policy asks."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from watchkeeper.runtime.policy import IRREVERSIBLE_TIER, Policy
from watchkeeper.runtime.policy_evaluation import NOT_MATCHED, CompiledRule
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.roles import permission_of_tier, permitted, roles_with
from watchkeeper.runtime.users import Users
from watchkeeper.tools.action import Reversibility
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.registry import AnyAction, Registry


class TooFewPeople(BaseModel):
    """A rule that asks for more people than there are.

    Attributes:
        rule: Its name.
        tier: Its tier.
        wanted: How many people must say yes.
        there: How many users may.
        role: Which role that takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    tier: int
    wanted: int
    there: int
    role: str


def too_few_people(
    policy: Policy, users: Users | None, registry: Registry, inventory: Inventory | None = None
) -> tuple[TooFewPeople, ...]:
    """Return the rules whose questions nobody, or not enough people, can answer with a yes.

    Args:
        policy: The policy.
        users: The users; None where there is no users file, and so no roles.
        registry: The actions: what is irreversible is asked for where a rule would allow it.
        inventory: The hosts, where they are known.
    """
    if users is None:
        return ()
    irreversible = [one for one in registry.actions if one.reversibility is Reversibility.IRREVERSIBLE]
    found: list[TooFewPeople] = []
    for compiled in policy.compiled:
        rule = compiled.rule
        tier = _highest_tier(compiled, irreversible, inventory)
        if tier is None:
            continue
        needed = permission_of_tier(tier)
        there = sum(permitted(user.roles, needed) for user in users.users)
        if there < rule.people:
            found.append(
                TooFewPeople(
                    rule=rule.name, tier=tier, wanted=rule.people, there=there, role=roles_with(needed)
                )
            )
    return tuple(found)


def _highest_tier(
    compiled: CompiledRule, irreversible: Sequence[AnyAction], inventory: Inventory | None
) -> int | None:
    """Return the highest tier at which a rule may ask; None where it never does."""
    rule = compiled.rule
    if rule.decision is Verdict.DENY:
        return None
    tiers: list[int] = []
    if rule.decision is Verdict.ASK or (rule.limit is not None and rule.limit.beyond == "ask"):
        tiers.append(rule.tier)
    if any(_may_hold(compiled, action, inventory) for action in irreversible):
        tiers.append(max(rule.tier, IRREVERSIBLE_TIER))
    return max(tiers, default=None)


def _may_hold(compiled: CompiledRule, action: AnyAction, inventory: Inventory | None) -> bool:
    if inventory is None:
        return compiled.rule.match.fits_action(action.name)
    return any(compiled.foresee(action, host, {}) != NOT_MATCHED for host in inventory)
