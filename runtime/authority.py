"""Authority: what somebody may do here is asked before it is done, and a refusal is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pydantic import JsonValue

from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.errors import ApprovalError, AuditError, IdentityError
from watchkeeper.runtime.people import People, Person, Proof, current_person
from watchkeeper.runtime.roles import Permission

REFUSED = "refused"
"""The kind of entry of the audit log that tells of a refusal."""


@contextmanager
def attempt(
    audit: AuditLog, what: str, permission: Permission | None = None
) -> Iterator[Callable[[Person], Person]]:
    """Write into the audit log that somebody was refused what they tried in the block.

    It yields what is to be called with who that is once it is known; until then it is the account of this
    process. A refusal that cannot be written is a refusal all the same.

    Args:
        audit: The log.
        what: What they try: ``"lift a stop"``.
        permission: What it takes, where that is one permission.
    """
    by, known_by = current_person(), Proof.ACCOUNT

    def known(person: Person) -> Person:
        nonlocal by, known_by
        by, known_by = person.name, person.proof
        return person

    try:
        yield known
    except (IdentityError, ApprovalError) as error:
        refused: dict[str, JsonValue] = {
            "by": by,
            "known_by": known_by.value,
            "what": what,
            "reason": str(error),
        }
        if permission is not None:
            refused["permission"] = permission.value
        with suppress(AuditError):
            audit.append(REFUSED, refused)
        raise


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
    with attempt(audit, what, permission) as known:
        person = known(people.at_terminal(token=token))
        person.check(permission, what)
    return person
