"""Whether there are people who may say yes to what a policy asks."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from watchkeeper.runtime.policy_rules import Rule
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.roles import permission_of_tier, permitted, roles_with
from watchkeeper.runtime.users import Users


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


def too_few_people(rules: tuple[Rule, ...], users: Users | None) -> tuple[TooFewPeople, ...]:
    """Return the rules whose questions nobody, or not enough people, can answer with a yes.

    Args:
        rules: The rules of a policy.
        users: The users; None where there is no users file, and so no roles.
    """
    found: list[TooFewPeople] = []
    if users is None:
        return ()
    for rule in rules:
        if rule.decision is not Verdict.ASK:
            continue
        needed = permission_of_tier(rule.tier)
        there = sum(permitted(user.roles, needed) for user in users.users)
        if there < rule.people:
            found.append(
                TooFewPeople(
                    rule=rule.name, tier=rule.tier, wanted=rule.people, there=there, role=roles_with(needed)
                )
            )
    return tuple(found)
