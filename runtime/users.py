"""Users: who there is, with which roles, in a file that its owner alone writes."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from watchkeeper.runtime.approval_types import person_key
from watchkeeper.runtime.errors import IdentityError
from watchkeeper.runtime.roles import Role
from watchkeeper.runtime.tokens import StoredToken, spend_as_much, split_token
from watchkeeper.tools.documents import DocumentError, read_document
from watchkeeper.tools.durable import leave_to_owner, open_kept

FILE = "users.yaml"
FIRST_ADMIN = "watchkeeper users add NAME --role admin --account ACCOUNT"
"""What is typed where there is no admin, for messages."""

_NAME = r"^[A-Za-z][A-Za-z0-9._@-]{0,63}$"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class User(_Record):
    """A person, however many accounts and tokens they have.

    Attributes:
        name: What they are called; unique, whatever the case.
        roles: What they may do; see `watchkeeper.runtime.roles.PERMISSIONS`.
        accounts: System accounts that are theirs.
        tokens: What is kept of their tokens.
    """

    name: str = Field(pattern=_NAME)
    roles: tuple[Role, ...] = Field(min_length=1)
    accounts: tuple[str, ...] = ()
    tokens: tuple[StoredToken, ...] = ()


class Users(_Record):
    """All users."""

    version: int = Field(default=1, ge=1, le=1)
    users: tuple[User, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Users:
        _once("user", [person_key(user.name) for user in self.users])
        _once("account", [account for user in self.users for account in user.accounts])
        _once("token", [token.id for user in self.users for token in user.tokens])
        return self

    def named(self, name: str) -> User | None:
        """Return the user of a name, in any case."""
        return next((u for u in self.users if person_key(u.name) == person_key(name)), None)

    def of_account(self, account: str) -> User | None:
        """Return the user whose system account this is."""
        return next((user for user in self.users if account in user.accounts), None)

    def of_token(self, token: str) -> User | None:
        """Return the user whose token this is; takes as long whatever the answer is."""
        parts = split_token(token)
        if parts is None:
            return None
        for user in self.users:
            for kept in user.tokens:
                if kept.id == parts[0]:
                    return user if kept.fits(parts[1]) else None
        spend_as_much(parts[1])
        return None


def load_users(home: Path) -> Users | None:
    """Read the users file of a home; None where there is none.

    Raises:
        IdentityError: If it is not usable, or others than its owner may write it: nobody is a user then.
    """
    path = home / FILE
    try:
        info = path.lstat()
        owners = {0, home.stat().st_uid}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(_refused(path, f"cannot be read: {error.strerror}")) from error
    if not stat.S_ISREG(info.st_mode):
        raise IdentityError(_refused(path, "is not a file: put the file itself there"))
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(info.st_mode)
        raise IdentityError(
            _refused(path, f"may be written by others than its owner (mode {mode:o}): chmod go-w it")
        )
    if info.st_uid not in owners:
        raise IdentityError(
            _refused(path, f"belongs to user id {info.st_uid}, not to the owner of the home: chown it")
        )
    try:
        document = read_document(path, "users file")
        return Users.model_validate(document.data)
    except DocumentError as error:
        raise IdentityError(f"{error}; until it is mended nobody may answer or run anything") from error
    except ValidationError as error:
        raise IdentityError(
            f"users file {document.explain(error)}; until it is mended nobody may answer or run anything"
        ) from error


def change_users(
    home: Path,
    change: Callable[[Users], Users],
    *,
    record: Callable[[Users, Users], None] = lambda _before, _after: None,
) -> Users:
    """Change the users file; it is the old one or the new one, whole, at any moment.

    Args:
        home: Folder of Watchkeeper's state.
        change: Makes the new users from those there are; raising leaves the file as it is.
        record: Told the users before and after when all that can be checked is right and the new file is
            written, before it takes the place of the old one; raising leaves that as it is.

    Raises:
        IdentityError: If the file is not usable or cannot be written.
    """
    path = home / FILE
    temporary = path.with_name(f".{FILE}.{os.getpid()}")
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _held(home):
            before = load_users(home) or Users()
            users = change(before)
            # Built anew, so that what is written is what can be read.
            users = Users.model_validate(users.model_dump(mode="json"))
            text = yaml.safe_dump(users.model_dump(mode="json"), sort_keys=False)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                leave_to_owner(handle, home)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            record(before, users)
            temporary.replace(path)
            _sync_folder(home)
    except OSError as error:
        raise IdentityError(f"users file {str(path)!r} cannot be written: {error.strerror}") from error
    except ValidationError as error:
        raise IdentityError(f"users: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return users


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _held(home: Path) -> Iterator[None]:
    descriptor = open_kept(home / ".users.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _once(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name!r} is there twice: it must be one person's")


def _refused(path: Path, why: str) -> str:
    return f"users file {str(path)!r} {why}; until then nobody may answer or run anything"
