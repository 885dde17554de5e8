"""The store on SQLite: one file, any number of processes of one machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from watchkeeper.runtime.clock import utc_now
from watchkeeper.runtime.database import HeldError
from watchkeeper.runtime.errors import StoreError

_BUSY_SECONDS = 30
_ROOM = 1 << 20
"""Free bytes under which an I/O error is taken for a full disk."""

_WRITERS: dict[Path, threading.Lock] = {}
"""For each file whose turn it is among the threads of this process; see `SqliteDatabase.writing`."""

# The threads that a lock waits for are not there in a forked process.
os.register_at_fork(after_in_child=_WRITERS.clear)


class SqliteDatabase:
    """A file in WAL mode; a transaction that writes is on the disk when it ends (``synchronous=FULL``).

    Args:
        path: The file; created with its folder if missing.

    Raises:
        StoreError: If the folder cannot be made.
    """

    shared = False
    reading: Mapping[str, Any] = {"begin": "BEGIN"}
    anew = "move the file aside to start anew"

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._path = path.absolute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(
                f"folder {str(path.parent)!r} cannot be made: {error.strerror}; "
                "choose another with WATCHKEEPER_HOME"
            ) from error
        _create(path)
        self.engine = _engine(path)

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Open a transaction with the write lock, in which tables may be changed.

        A table that is made anew and takes the place of the old one must not take rows that point to it
        along, so foreign keys are checked at the end only.
        """
        with self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    if broken is not None:
                        raise StoreError(self.damaged(f"a row of {broken[0]} points to none of {broken[2]}"))
            finally:
                driver.execute("PRAGMA foreign_keys=ON")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until no other thread of this process writes.

        SQLite's own way to wait for a lock is to sleep and look again; with threads that write at the same
        time, as those that read facts do, most of the time is slept. Where it takes too long it is left to
        SQLite to say so.
        """
        turn = _WRITERS.setdefault(self._path, threading.Lock())
        taken = turn.acquire(timeout=_BUSY_SECONDS)
        try:
            yield
        finally:
            if taken:
                turn.release()

    def now(self, connection: Connection | None) -> datetime:  # noqa: ARG002 (one machine, one clock)
        """The time of this machine."""
        return utc_now()

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a name; the lock is the kernel's, and free again when its process ends, however it ends.

        Raises:
            HeldError: If another process or thread holds it.
            StoreError: If the lock's file cannot be made.
        """
        path = self._path.parent / "locks" / f"{name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"lock {str(path)!r} cannot be made: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise HeldError(f"process {holder}") from error
            # Who holds it is for messages only; a full disk must not look like a lock that is held.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def check(self, connection: Connection) -> None:
        """Read the whole database.

        Raises:
            StoreError: If it is damaged.
        """
        answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if answer != "ok":
            raise StoreError(self.damaged(str(answer)))

    def explain(self, error: BaseException) -> str:
        """Say in one line what an error of the driver means and what to do."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        place = repr(self.place)
        if primary == sqlite3.SQLITE_FULL or (
            primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and self._is_full()
        ):
            return (
                f"no space left for database {place}: nothing of this was written; "
                "free some space on that file system and try again"
            )
        if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return self.damaged(str(error))
        if primary == sqlite3.SQLITE_BUSY:
            return (
                f"database {place} was locked by another process for {_BUSY_SECONDS} s; "
                "look for one that hangs, and try again"
            )
        if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
            return f"database {place} cannot be opened for writing ({error}): check its owner and permissions"
        return f"database {place}: {error}"

    def damaged(self, what: str) -> str:
        """Say that the database is damaged, and what to do."""
        said = " ".join(what.replace("*** in database main ***", "").split())
        return (
            f"database {self.place!r} is damaged ({said:.120}): restore it from a backup, or move it "
            "and its -wal and -shm files aside to start anew; the audit log is kept apart from it and still "
            "tells what was done"
        )

    def _is_full(self) -> bool:
        try:
            return shutil.disk_usage(self._path.parent).free < _ROOM
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
