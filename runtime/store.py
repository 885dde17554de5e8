"""The store: one SQLite database that survives a crash at any point."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, select, update
from sqlalchemy.exc import DBAPIError

from watchkeeper.runtime.clock import utc_now
from watchkeeper.runtime.errors import StoreError
from watchkeeper.runtime.leases import Lease, check_lease
from watchkeeper.runtime.schema import MIGRATIONS, SCHEMA_VERSION, meta, metadata

_BUSY_SECONDS = 30
_ROOM = 1 << 20
"""Free bytes under which an I/O error is taken for a full disk."""


_FENCES: ContextVar[tuple[tuple[Store, Lease], ...]] = ContextVar("watchkeeper_fences", default=())
"""What must still be held by who writes; see `Store.fenced`."""


class Store:
    """The database of incidents, decisions, steps, approvals and effects.

    Any number of threads and processes may use it: a transaction that writes holds the write lock from
    its first statement (``BEGIN IMMEDIATE``) and is on the disk when its block ends
    (``synchronous=FULL``).

    Args:
        path: File of the database; created if missing.

    Raises:
        StoreError: If it cannot be opened, is damaged, or was written by a newer Watchkeeper.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._current = threading.local()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(
                f"folder {str(path.parent)!r} cannot be made: {error.strerror}; "
                "choose another with WATCHKEEPER_HOME"
            ) from error
        _create(path)
        self._engine = _engine(path)
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

    @contextmanager
    def transaction(self, *, outermost: bool = False) -> Iterator[Connection]:
        """Write: everything in the block happens, or nothing of it.

        Inside another transaction of the same thread the block becomes a part of that one (and is still
        undone alone if it raises).

        Args:
            outermost: Refuse to become a part of another one, for what must be on the disk at the end
                of the block.

        Raises:
            StoreError: If the database cannot be written.
            FencedError: If what is done here was taken over by another worker; see `fenced`.
        """
        current: Connection | None = getattr(self._current, "connection", None)
        if current is not None:
            if outermost:
                raise StoreError(
                    "a record that must be on the disk before its effect was about to be written inside "
                    "another transaction; end that one first"
                )
            with self._translated(), current.begin_nested():
                yield current
            return
        with self._translated(), self._engine.connect() as connection, connection.begin():
            self._current.connection = connection
            try:
                for store, lease in _FENCES.get():
                    if store is self:
                        check_lease(connection, lease)
                yield connection
            finally:
                self._current.connection = None

    @contextmanager
    def fenced(self, lease: Lease) -> Iterator[None]:
        """Let nothing be written from within the block once another holder has the lease.

        That holds for what the block calls in threads, too, where they run in a copy of its context, as those
        of LangGraph do. `transaction` then raises FencedError.
        """
        token = _FENCES.set((*_FENCES.get(), (self, lease)))
        try:
            yield
        finally:
            _FENCES.reset(token)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one consistent state, without holding the write lock.

        Raises:
            StoreError: If the database cannot be read.
        """
        current: Connection | None = getattr(self._current, "connection", None)
        if current is not None:
            with self._translated():
                yield current
            return
        with (
            self._translated(),
            self._engine.connect().execution_options(begin="BEGIN") as connection,
            connection.begin(),
        ):
            yield connection

    def now(self) -> datetime:
        """The time by which due times and leases are judged: the same for all who use this store."""
        return utc_now()

    def check(self) -> None:
        """Read the whole database and say whether it is sound.

        Raises:
            StoreError: If it is damaged.
        """
        with self.reading() as connection:
            answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if answer != "ok":
            raise StoreError(self._damaged(str(answer)))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        with self._engine.connect().execution_options(begin="BEGIN") as connection, connection.begin():
            names = set(inspect(connection).get_table_names())
        if not names:
            with self._engine.connect() as connection, connection.begin():
                if not inspect(connection).get_table_names():
                    metadata.create_all(connection)
                    connection.execute(meta.insert().values(name="schema", value=str(SCHEMA_VERSION)))
        elif meta.name not in names:
            raise StoreError(
                f"{str(self.path)!r} is a database, but not one of Watchkeeper; "
                "choose another WATCHKEEPER_HOME"
            )
        found = self._version()
        if found in MIGRATIONS:
            found = self._migrate()
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"database {str(self.path)!r} has schema {found}, this Watchkeeper knows {SCHEMA_VERSION}: "
                "it was written by another release; use that one, or move the file aside to start anew"
            )

    def _version(self) -> int:
        with self._engine.connect().execution_options(begin="BEGIN") as connection, connection.begin():
            return self._version_in(connection)

    def _version_in(self, connection: Connection) -> int:
        found = connection.execute(select(meta.c.value).where(meta.c.name == "schema")).scalar()
        if found is None or not found.isdecimal():
            raise StoreError(self._damaged(f"its schema version is {found!r}"))
        return int(found)

    def _migrate(self) -> int:
        """Bring an older database up to date, wholly or not at all; returns its version then."""
        with self._engine.connect() as connection, connection.begin():
            # Another process may have done so while this one waited for the write lock.
            version = self._version_in(connection)
            while version in MIGRATIONS:
                for statement in MIGRATIONS[version]:
                    connection.exec_driver_sql(statement)
                version += 1
            connection.execute(update(meta).where(meta.c.name == "schema").values(value=str(version)))
        return version

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(self._explain(error.orig or error)) from error
        except sqlite3.Error as error:
            raise StoreError(self._explain(error)) from error

    def _explain(self, error: BaseException) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        place = repr(str(self.path))
        if primary == sqlite3.SQLITE_FULL or (
            primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and self._is_full()
        ):
            return (
                f"no space left for database {place}: nothing of this was written; "
                "free some space on that file system and try again"
            )
        if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return self._damaged(str(error))
        if primary == sqlite3.SQLITE_BUSY:
            return (
                f"database {place} was locked by another process for {_BUSY_SECONDS} s; "
                "look for one that hangs, and try again"
            )
        if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
            return f"database {place} cannot be opened for writing ({error}): check its owner and permissions"
        return f"database {place}: {error}"

    def _damaged(self, what: str) -> str:
        said = " ".join(what.replace("*** in database main ***", "").split())
        return (
            f"database {str(self.path)!r} is damaged ({said:.120}): restore it from a backup, or move it "
            "and its -wal and -shm files aside to start anew; the audit log is kept apart from it and still "
            "tells what was done"
        )

    def _is_full(self) -> bool:
        try:
            return shutil.disk_usage(self.path.parent).free < _ROOM
        except OSError:
            return False


def _create(path: Path) -> None:
    """Create the file if it is missing, readable for its owner alone: diffs may quote configuration.

    SQLite gives its other files the owner and permissions of this one. Root, who may look into another
    user's home before that user ran anything, creates it for them.
    """
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.fchown(handle, folder.st_uid, folder.st_gid)
        finally:
            os.close(handle)


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None, "timeout": _BUSY_SECONDS, "check_same_thread": False},
    )

    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _use_wal(cursor: Any) -> None:
    # Two processes that both turn a new database to WAL may be refused at once, whatever the timeout.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
