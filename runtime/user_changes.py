"""Changing who the users are: by an admin, with every change and refusal audited, and an admin left over."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue

from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.authority import attempt
from watchkeeper.runtime.errors import AuditError, IdentityError
from watchkeeper.runtime.people import People, Person, Proof, current_person
from watchkeeper.runtime.roles import Permission, permitted
from watchkeeper.runtime.users import FIRST_ADMIN, User, Users, change_users, load_users

CHANGED = "users-changed"
"""The kind of entry of the audit log that tells of a change of the users."""

FAILED = "users-change-failed"
"""The kind of the entry after it where the new file could not take the place of the old one."""


def manage_users(
    home: Path, name: str, what: str, change: Callable[[Users], Users], *, token: str | None = None
) -> Users:
    """Change a user, where who is at this terminal may; the audit log tells of it, or of the refusal.

    An admin may. Where no admin can sign in, the account that owns the home, or root, may see to it that one
    can. The entry, with what the user was before and is afterwards, is written when all is ready and before
    the file takes the place of the old one: no change is unaudited.

    Args:
        home: Folder of Watchkeeper's state.
        name: The user who is changed.
        what: What is done, for messages and the audit log: ``"add 'bob'"``.
        change: Makes the new users from those there are; raising leaves all as it is.
        token: Token of who asks, where it is not this process's user.

    Returns:
        The users from now on.

    Raises:
        IdentityError: If who asks may not, no admin could sign in afterwards, the new users make no sense, or
            the file is not usable or cannot be written.
        AuditError: If the audit log cannot be written; nothing is changed then.
    """
    audit = AuditLog(home)
    person: Person | None = None
    recorded = False

    def allowed(users: Users) -> Users:
        nonlocal person
        with attempt(audit, what, Permission.MANAGE) as known:
            person = _manager(home, users, what, known, token)
        return change(users)

    def record(before: Users, after: Users) -> None:
        nonlocal recorded
        assert person is not None
        by = person
        with attempt(audit, what, Permission.MANAGE) as known:
            known(by)
            _keep_an_admin(before, after, what)
        entry: dict[str, JsonValue] = {
            "by": by.name,
            "known_by": by.proof.value,
            "what": what,
            "user": name,
            "before": _recorded(before.named(name)),
            "after": _recorded(after.named(name)),
        }
        audit.append(CHANGED, entry)
        recorded = True

    with attempt(audit, what, Permission.MANAGE):
        load_users(home)
    try:
        return change_users(home, allowed, record=record)
    except IdentityError as error:
        if recorded:
            with suppress(AuditError):
                audit.append(FAILED, {"what": what, "user": name, "reason": str(error)})
        raise


def admins_who_can_sign_in(users: Users) -> tuple[User, ...]:
    """Return the admins who have a token, or an account that this machine knows."""
    return tuple(
        user
        for user in users.users
        if permitted(user.roles, Permission.MANAGE)
        and (user.tokens or any(_is_account(account) for account in user.accounts))
    )


def lacks_admin(home: Path) -> bool:
    """Whether a home has users and no admin who can sign in, as earlier releases allowed.

    Raises:
        IdentityError: If the users file is not usable.
    """
    users = load_users(home)
    return users is not None and bool(users.users) and not admins_who_can_sign_in(users)


def owner_of(home: Path) -> str:
    """Return the account that owns a home."""
    number = home.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid-{number}"


def _manager(
    home: Path, users: Users, what: str, known: Callable[[Person], Person], token: str | None
) -> Person:
    """Say who changes the users, if they may.

    Raises:
        IdentityError: If they may not, or it is not known who they are.
    """
    people = People(home)
    if admins_who_can_sign_in(users):
        person = known(people.at_terminal(token=token))
        person.check(Permission.MANAGE, what)
        return person
    if users.users and token is not None:
        person = known(people.at_terminal(token=token))
        raise IdentityError(
            f"{person.name!r} may not {what}: no admin can sign in, and without one only the account "
            f"{owner_of(home)!r}, which owns the home, or root may add one, without a token: `{FIRST_ADMIN}`"
        )
    account = current_person()
    user = users.of_account(account)
    person = (
        Person(account, Proof.ACCOUNT)
        if user is None
        else Person(user.name, Proof.ACCOUNT, user.roles, user.accounts)
    )
    known(person)
    if os.getuid() not in {0, home.stat().st_uid}:
        raise IdentityError(
            f"{person.name!r} may not {what}: without an admin who can sign in only the account "
            f"{owner_of(home)!r}, which owns the home, or root may add one: `{FIRST_ADMIN}`"
        )
    return person


def _keep_an_admin(before: Users, after: Users, what: str) -> None:
    """Refuse what leaves nobody who may say who the users are.

    Raises:
        IdentityError: Saying how an admin can sign in.
    """
    if admins_who_can_sign_in(after):
        return
    admins = [user for user in after.users if permitted(user.roles, Permission.MANAGE)]
    unknown = [account for user in admins for account in user.accounts]
    if admins:
        named = ", ".join(repr(user.name) for user in admins)
        why = f"{named} would have neither a token nor an account of this machine" + (
            f" ({', '.join(map(repr, unknown))} is none)" if unknown else ""
        )
    elif any(permitted(user.roles, Permission.MANAGE) for user in before.users):
        why = "there would be no admin"
    else:
        why = "there is no admin" if before.users else "the first user must be an admin"
    if admins_who_can_sign_in(before):
        way_out = (
            f"first let another admin sign in: `{FIRST_ADMIN}`, or `watchkeeper users accounts NAME ACCOUNT`"
        )
    else:
        way_out = f"`{FIRST_ADMIN}` (in place of an account: --with-token)"
    raise IdentityError(f"cannot {what}: {why}, and nobody could say who the users are; {way_out}")


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return re.fullmatch(r"uid-\d+", name) is not None  # see `current_person`
    return True


def _recorded(user: User | None) -> JsonValue:
    """What the audit log keeps of a user; ids of tokens are not secret."""
    if user is None:
        return None
    return {
        "roles": [role.value for role in user.roles],
        "accounts": list(user.accounts),
        "tokens": [token.id for token in user.tokens],
    }
