"""Authority: what somebody may do here is asked before it is done, and a refusal is written down."""

from __future__ import annotations

from contextlib import suppress

from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.errors import AuditError, IdentityError
from watchkeeper.runtime.people import People, Person, current_person
from watchkeeper.runtime.roles import Permission

REFUSED = "refused"
"""The kind of entry of the audit log that tells of a refusal."""


def authorize(
    people: People, audit: AuditLog, permission: Permission, what: str, *, token: str | None = None
) -> Person:
    """Say who is at this terminal, where they may do something; without a users file everybody may.

    Args:
        people: Who there is.
        audit: Where a refusal is written. One that cannot be written is a refusal all the same.
        permission: What is needed.
        what: What they are about to do: ``"lift a stop"``.
        token: Their token, where it is not this process's user.

    Raises:
        IdentityError: If there is a users file, and it is not known who this is, or their roles do not do.
    """
    by, known_by = current_person(), "account"
    try:
        person = people.at_terminal(token=token)
        by, known_by = person.name, person.proof.value
        person.check(permission, what)
    except IdentityError as error:
        with suppress(AuditError):
            audit.append(
                REFUSED,
                {
                    "by": by,
                    "known_by": known_by,
                    "what": what,
                    "permission": permission.value,
                    "reason": str(error),
                },
            )
        raise
    return person
