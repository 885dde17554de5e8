"""Who somebody is: by system account, token or a proxy's word; and what they may do."""

from __future__ import annotations

import ipaddress
import os
import pwd
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from watchkeeper.runtime.approval_types import Answer, Approval, same_person
from watchkeeper.runtime.errors import IdentityError
from watchkeeper.runtime.roles import Permission, Role, needed_for, permitted, roles_with
from watchkeeper.runtime.settings import Settings
from watchkeeper.runtime.tokens import split_token
from watchkeeper.runtime.users import FILE, FIRST_ADMIN, User, Users, load_users

TOKEN_VARIABLE = "WATCHKEEPER_TOKEN"  # noqa: S105 (the name of a variable)


class Proof(StrEnum):
    """How it is known who somebody is.

    ``SAID``: a program of the same process says so, and there is no users file to hold it against.
    """

    ACCOUNT = "account"
    TOKEN = "token"  # noqa: S105 (a word)
    PROXY = "proxy"
    SAID = "said"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, and how it is known who they are.

    Attributes:
        name: What they are called.
        proof: How that is known.
        roles: What they may do; None where there is no users file, and so no roles.
        accounts: System accounts that are theirs, by the users file.
        credential: The account, or the id of the token, by which that is known; empty where it is neither.
    """

    name: str
    proof: Proof
    roles: tuple[Role, ...] | None = None
    accounts: tuple[str, ...] = ()
    credential: str = field(default="", compare=False)

    def has_lost(self, user: User) -> bool:
        """Whether what it is known by was taken from them since."""
        match self.proof:
            case Proof.TOKEN:
                return bool(self.credential) and all(kept.id != self.credential for kept in user.tokens)
            case Proof.ACCOUNT:
                return bool(self.credential) and self.credential not in user.accounts
        return False

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which they may be on record: before there were users, they were an account."""
        return (self.name, *self.accounts)

    def may(self, permission: Permission) -> bool:
        """Whether they may do this."""
        return self.roles is None or permitted(self.roles, permission)

    def check(self, permission: Permission, what: str) -> None:
        """Refuse what they may not do.

        Args:
            permission: What is needed.
            what: What they are about to do, for the message: ``"approve APR-7K3QW"``.

        Raises:
            IdentityError: Naming the permission, and the roles that have it.
        """
        if not self.may(permission):
            held = ", ".join(role.value for role in self.roles or ())
            raise IdentityError(
                f"{self.name!r} ({held}) may not {what}: it takes the role {roles_with(permission)} "
                f"(permission {permission.value!r})"
            )


class People:
    """Who there is at a home: its users file where it has one, else the system's accounts.

    The file is read at every question, so that a user who was removed is out at once.

    Args:
        home: Folder of Watchkeeper's state.
        header: Name of the header in which a proxy says who somebody is; empty for none.
        proxies: Addresses or networks from which that header is believed.
    """

    def __init__(self, home: Path, *, header: str = "", proxies: Iterable[str] = ()) -> None:
        self._home = home
        self._header = header.strip().lower()
        self._proxies = tuple(ipaddress.ip_network(proxy, strict=False) for proxy in proxies)

    @classmethod
    def of(cls, settings: Settings) -> People:
        """Return who there is at the home of these settings, believing the proxies that they name."""
        return cls(settings.home, header=settings.identity_header, proxies=settings.identity_proxies)

    @property
    def users(self) -> Users | None:
        """The users, or None where there is no users file.

        Raises:
            IdentityError: If the file is not usable.
        """
        return load_users(self._home)

    def accounts(self, name: str) -> tuple[str, ...]:
        """Return the system accounts of a user, to be kept with what they did: the file may change.

        A users file that is not usable names none: nobody may answer anything until it is mended.
        """
        user = None
        with suppress(IdentityError):
            users = self.users
            user = None if users is None else users.named(name)
        return () if user is None else user.accounts

    def at_terminal(self, *, by: str | None = None, token: str | None = None) -> Person:
        """Say who asks or answers in this process.

        Args:
            by: Who they say they are. With a users file that must be true: by the token, or because it is
                the user of this process's system account.
            token: Their token.

        Raises:
            IdentityError: If there is a users file and it is not known from it who this is.
        """
        users = self.users
        if users is None:
            if token is not None:
                raise IdentityError(
                    f"a token was given, but there is no users file {str(self._home / FILE)!r}: "
                    f"make one with `{FIRST_ADMIN}`, or give no token"
                )
            account = current_person()
            return Person(account, Proof.ACCOUNT) if by is None else Person(by, Proof.SAID)
        if token is not None:
            person = self._of_token(users, token)
        else:
            account = current_person()
            person = _person(users.of_account(account), Proof.ACCOUNT, f"account {account!r}", account)
        if by is not None and not same_person(by, person.name):
            raise IdentityError(
                f"{by!r} is not who this is: the {person.proof.value} is that of {person.name!r}; "
                "who speaks for somebody else needs their token"
            )
        return person

    def confirm(self, by: Person | str | None = None, *, token: str | None = None) -> Person:
        """Say who answers, with the roles that they have at this moment.

        Args:
            by: Who they are: a person that `at_terminal` or `identify` found, or a name, which `at_terminal`
                holds against the users file.
            token: Their token.

        Raises:
            IdentityError: If there is a users file and it is not known from it who this is.
        """
        if not isinstance(by, Person):
            return self.at_terminal(by=by, token=token)
        users = self.users
        if token is None and users is None and by.roles is None:
            return by
        if users is None or by.roles is None or token is not None:
            return self.at_terminal(by=by.name, token=token)
        user = users.named(by.name)
        if user is not None and by.has_lost(user):
            raise IdentityError(
                f"the {by.proof.value} by which {by.name!r} was known is theirs no more: "
                f"whoever goes on needs another, or a token in {TOKEN_VARIABLE}"
            )
        return _person(user, by.proof, f"user {by.name!r}", by.credential)

    def still(self, person: Person) -> Person:
        """Return somebody whom this process was begun by, with what they may do at this moment.

        A name that was only said stays what it is. An account is that of its user, once there is one.

        Raises:
            IdentityError: If they are no user any more, or what they were known by was taken from them.
        """
        if person.proof is Proof.SAID:
            return person
        return self.at_terminal() if person.roles is None else self.confirm(person)

    def identify(self, headers: Sequence[tuple[str, str]], peer: str) -> Person:
        """Say who sent a request to a server: by a bearer token, or by a proxy's header.

        Args:
            headers: Names and values, as they came.
            peer: Address of who sent it.

        Raises:
            IdentityError: If it is not known who this is, or the header comes from where it is not
                believed.
        """
        users = self.users
        if users is None:
            raise IdentityError(
                f"requests are answered for users only, and there is no users file "
                f"{str(self._home / FILE)!r}: make one with `{FIRST_ADMIN}`"
            )
        bearers = _values(headers, "authorization")
        named = _values(headers, self._header) if self._header else []
        if named and not self._is_proxy(peer):
            raise IdentityError(
                f"header {self._header!r} came from {peer!r}, which is none of the proxies that are believed"
            )
        if len(bearers) + len(named) > 1:
            raise IdentityError("a request says more than once who it is from")
        if named:
            return _person(users.named(named[0]), Proof.PROXY, f"user {named[0]!r}")
        if bearers:
            scheme, _, token = bearers[0].partition(" ")
            if scheme.lower() == "bearer":
                return self._of_token(users, token)
        raise IdentityError("a request does not say who it is from: it needs a bearer token")

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._proxies if network.version == address.version)

    def _of_token(self, users: Users, token: str) -> Person:
        parts = split_token(token)
        return _person(users.of_token(token), Proof.TOKEN, "this token", parts[0] if parts else "")


def check_answer(person: Person, asked: Approval, answer: Answer) -> None:
    """Refuse an answer that a person's roles do not allow.

    Raises:
        IdentityError: Naming the roles that may.
    """
    what = f"answer {answer.value!r} to {asked.id} (tier {asked.tier})"
    person.check(needed_for(asked, answer), what)


def check_votes(people: People, asked: Approval) -> None:
    """Count no yes of somebody who may not say it any more.

    Raises:
        IdentityError: If there is such a yes.
    """
    users = people.users
    if users is None:
        return
    for vote in asked.votes:
        user = users.named(vote.by) or users.of_account(vote.by)
        if user is None or not permitted(user.roles, needed_for(asked, Answer.APPROVE)):
            raise IdentityError(
                f"approval {asked.id!r}: {vote.by!r}, who said yes before, may not any more; reject it, "
                "and have it asked anew"
            )


def token_from_environment() -> str | None:
    """The token that the environment holds, if any."""
    return os.environ.get(TOKEN_VARIABLE) or None


def current_person() -> str:
    """The name of this process's user, as the system knows it.

    The environment (``LOGNAME``, ``USER``) is not asked: whoever asks for an action could take another
    name there and approve it.
    """
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid-{number}"


def _person(user: User | None, proof: Proof, what: str, credential: str = "") -> Person:
    if user is None:
        raise IdentityError(
            f"{what} is no user's: an admin adds one with `watchkeeper users add`, or a token is given in "
            f"{TOKEN_VARIABLE}"
        )
    return Person(user.name, proof, user.roles, user.accounts, credential)


def _values(headers: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value.strip() for key, value in headers if key.strip().lower() == name]
