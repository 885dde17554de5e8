"""Databases that the store can stand on, behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError

from watchkeeper.runtime.errors import StoreError


class HeldError(Exception):
    """A name is held by another process or thread; the message says by whom."""


class Database(Protocol):
    """What differs between SQLite and PostgreSQL.

    Attributes:
        place: Where it is, for messages: never with a password.
        shared: Whether several machines may use it at once.
        engine: Its connections; a transaction begins with the write lock unless it was opened with
            ``reading``.
        reading: Execution options of a transaction that only reads one consistent state.
        anew: What to do to start with an empty database, for messages.
    """

    place: str
    shared: bool
    engine: Engine
    reading: Mapping[str, Any]
    anew: str

    def migrating(self) -> AbstractContextManager[Connection]:
        """Open a transaction with the write lock, in which tables may be changed."""

    def writing(self) -> AbstractContextManager[None]:
        """Enclose each transaction that writes, from before it begins."""

    def now(self, connection: Connection | None) -> datetime:
        """The time, by one clock for all who use this database.

        Args:
            connection: The connection whose transaction the caller is in; None if in none.
        """

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Hold a name on this machine, until the block or the process ends; nothing where it is `shared`.

        Raises:
            HeldError: If another one holds it.
            StoreError: If that cannot be found out.
        """

    def check(self, connection: Connection) -> None:
        """Read the whole database.

        Raises:
            StoreError: If it is damaged.
        """

    def explain(self, error: BaseException) -> str:
        """Say in one line what an error of the driver means and what to do."""

    def damaged(self, what: str) -> str:
        """Say that the database is damaged, and what to do."""


def open_database(place: Path | str) -> Database:
    """Open a file (SQLite) or a URL (``postgresql://user@host/name``).

    Nothing is read or written yet, but the folder and the file of SQLite are made where they are missing.

    Raises:
        StoreError: If the place is not usable, or what it needs is not installed.
    """
    if isinstance(place, str) and "://" in place:
        url = _parsed(place)
        backend = url.get_backend_name()
        if backend in {"postgres", "postgresql"}:
            from watchkeeper.runtime.database_postgresql import PostgresqlDatabase

            return PostgresqlDatabase(url)
        if backend != "sqlite" or not url.database:
            raise StoreError(
                f"store {backend + '://'!r} is not known: name a file, or a URL such as "
                "'postgresql://watchkeeper@db.example/watchkeeper'"
            )
        place = url.database
    from watchkeeper.runtime.database_sqlite import SqliteDatabase

    return SqliteDatabase(Path(place))


def _parsed(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # What could not be read may hold a password: the message does not repeat it.
        raise StoreError(
            f"store {text.partition('://')[0] + '://...'!r} is not a URL: it looks like "
            "'postgresql://watchkeeper@db.example:5432/watchkeeper'"
        ) from None
