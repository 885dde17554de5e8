"""Roles of users in escalation rules: a level that names one calls the users who have it."""

from __future__ import annotations

from collections.abc import Iterator

from watchkeeper.runtime.approval_types import person_key
from watchkeeper.runtime.escalation_rules import EscalationRules, Person
from watchkeeper.runtime.roles import Role
from watchkeeper.runtime.users import Users


def with_users(rules: EscalationRules, users: Users | None) -> EscalationRules:
    """Put the users of a role into the rules, where a level names it and no group of the rules is called so.

    Who is named under ``people``, in any case, is called by their channels there; other users at the
    terminal.

    Args:
        rules: The rules.
        users: The users; None where there is no users file.
    """
    named = {person_key(name): name for name in rules.people}
    roles, people = dict(rules.roles), dict(rules.people)
    for role in dict.fromkeys(_roles(rules)):
        members = tuple(
            named.get(person_key(user.name), user.name)
            for user in (users.users if users else ())
            if role in user.roles
        )
        if members:
            roles[role] = members
            people |= {name: people.get(name, Person()) for name in members}
    return rules.model_copy(update={"roles": roles, "people": people})


def roles_of_nobody(rules: EscalationRules, users: Users | None) -> tuple[tuple[str, int, str], ...]:
    """Return policies, numbers of levels, and roles that they name and no user has."""
    bound = with_users(rules, users)
    return tuple(
        (name, number, role)
        for name, plan in rules.policies.items()
        for number, level in enumerate(plan.levels, start=1)
        for role in level.who.roles
        if not bound.roles.get(role)
    )


def _roles(rules: EscalationRules) -> Iterator[Role]:
    for plan in rules.policies.values():
        for level in plan.levels:
            for role in level.who.roles:
                if role not in rules.roles and role in set(Role):
                    yield Role(role)
