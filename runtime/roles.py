"""Roles: what each may do, in one table."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from watchkeeper.runtime.approval_types import Answer, Approval


class Role(StrEnum):
    """What a user is."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a user may do.

    ``LOOK``: see incidents, questions and the audit log.
    ``RUN``: have incidents handled, in their own name.
    ``ANSWER``: answer questions in any way but with a yes.
    ``APPROVE``: say yes to what is of tier 1.
    ``APPROVE_HIGH``: say yes to what is of tier 2 or 3.
    ``MANAGE``: say who is a user.
    ``SERVE``: let a worker do what others submitted.
    ``ACKNOWLEDGE``: say that they are on what people are called about, or hand it on.
    ``REVIEW``: say whether decisions of agents were right.
    ``RESET_BREAKER``: let an action that keeps failing be tried again.
    ``LIFT``: let work go on after a stop; stopping takes no permission.
    ``RELEASE``: have notifications sent that a restore held back.
    ``BACK_UP``: back up the home, and restore one.
    ``EXPORT_AUDIT``: write signed exports of the audit log.
    ``PROMOTE``: say which version of a predictor answers, and which adapters a model has.
    ``PRUNE``: remove old incidents, old entries of the audit log, and what was moved away to free space.
    """

    LOOK = "look"
    RUN = "run"
    ANSWER = "answer"
    APPROVE = "approve"
    APPROVE_HIGH = "approve-high"
    MANAGE = "manage"
    SERVE = "serve"
    ACKNOWLEDGE = "acknowledge"
    REVIEW = "review"
    RESET_BREAKER = "reset-breaker"
    LIFT = "lift"
    RELEASE = "release"
    BACK_UP = "back-up"
    EXPORT_AUDIT = "export-audit"
    PROMOTE = "promote"
    PRUNE = "prune"


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.LOOK}),
    Role.OPERATOR: frozenset(
        {
            Permission.LOOK,
            Permission.RUN,
            Permission.SERVE,
            Permission.ANSWER,
            Permission.APPROVE,
            Permission.ACKNOWLEDGE,
            Permission.REVIEW,
        }
    ),
    Role.APPROVER: frozenset(
        {
            Permission.LOOK,
            Permission.ANSWER,
            Permission.APPROVE,
            Permission.APPROVE_HIGH,
            Permission.ACKNOWLEDGE,
            Permission.REVIEW,
            Permission.PROMOTE,
            Permission.RESET_BREAKER,
            Permission.LIFT,
            Permission.RELEASE,
        }
    ),
    Role.ADMIN: frozenset(
        {
            Permission.LOOK,
            Permission.MANAGE,
            Permission.ACKNOWLEDGE,
            Permission.LIFT,
            Permission.RELEASE,
            Permission.BACK_UP,
            Permission.EXPORT_AUDIT,
            Permission.PRUNE,
        }
    ),
}
"""By role: what it may do. Who has several roles may do what any of them may."""

HIGH_TIER = 2
"""The lowest tier that needs an approver."""


def permitted(roles: Iterable[Role], permission: Permission) -> bool:
    """Whether one of the roles may do this."""
    return any(permission in PERMISSIONS[role] for role in roles)


def roles_with(permission: Permission) -> str:
    """Name the roles that may do this, for messages."""
    return " or ".join(role.value for role in Role if permission in PERMISSIONS[role])


def needed_for(asked: Approval, answer: Answer) -> Permission:
    """What must be permitted to who gives this answer to this question."""
    if answer is not Answer.APPROVE:
        return Permission.ANSWER
    return permission_of_tier(asked.tier)


def permission_of_tier(tier: int) -> Permission:
    """What must be permitted to who says yes to something of a tier."""
    return Permission.APPROVE_HIGH if tier >= HIGH_TIER else Permission.APPROVE
