"""The store: one database that survives a crash at any point."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from watchkeeper.runtime.database import open_database
from watchkeeper.runtime.errors import StoreError
from watchkeeper.runtime.leases import Lease, Leases, check_lease
from watchkeeper.runtime.migrations import bring_up_to_date, schema_of

_FENCES: ContextVar[tuple[tuple[Store, Lease], ...]] = ContextVar("watchkeeper_fences", default=())
"""What must still be held by who writes; see `Store.fenced`."""


class Store:
    """The database of incidents, decisions, steps, approvals and effects.

    Any number of threads and processes may use it: a transaction that writes holds the write lock from
    its first statement and is on the disk when its block ends. On SQLite the lock is ``BEGIN IMMEDIATE``
    and the disk is ``synchronous=FULL``; on PostgreSQL they are an advisory lock and
    ``synchronous_commit``.

    Args:
        place: File of a SQLite database, created if missing, or the URL of a PostgreSQL database
            (``postgresql://user@host/name``).
        migrate: Whether tables are made or changed where they are not those of this release; without that
            nothing is written by opening it, and what is there may not be read but by `schema`.

    Raises:
        StoreError: If it cannot be opened, is damaged, or was written by a newer Watchkeeper.
    """

    def __init__(self, place: Path | str, *, migrate: bool = True) -> None:
        self._current = threading.local()
        self._database = open_database(place)
        try:
            with self._translated():
                if migrate:
                    bring_up_to_date(self._database)
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """Where it is, for messages: never with a password."""
        return self._database.place

    @property
    def schema(self) -> int | None:
        """The number of the schema of its tables; None if it has none.

        Raises:
            StoreError: If it is not one of Watchkeeper, or of another release.
        """
        with self._translated():
            return schema_of(self._database)

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
        calls: list[Callable[[], object]]
        undone: list[Callable[[], object]]
        current: Connection | None = getattr(self._current, "connection", None)
        if current is not None:
            if outermost:
                raise StoreError(
                    "a record that must be on the disk before its effect was about to be written inside "
                    "another transaction; end that one first"
                )
            calls, undone = self._current.afterwards, self._current.undone
            kept, kept_undone = len(calls), len(undone)
            try:
                with self._translated(), current.begin_nested():
                    yield current
            except BaseException:
                del calls[kept:]
                _call_each(undone[kept_undone:])
                del undone[kept_undone:]
                raise
            return
        calls, undone = [], []
        try:
            with (
                self._translated(),
                self._database.writing(),
                self._database.engine.connect() as connection,
                connection.begin(),
            ):
                self._current.connection = connection
                self._current.afterwards = calls
                self._current.undone = undone
                try:
                    for store, lease in _FENCES.get():
                        if store is self:
                            check_lease(connection, lease)
                    yield connection
                finally:
                    self._current.connection = None
        except BaseException:
            _call_each(undone)
            raise
        _call_each(calls)

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call something once all that this thread is writing is on the disk; never if it is undone.

        Args:
            call: What to call; at once, where this thread is writing nothing. One that raises keeps none of
                the others from being called.
        """
        if getattr(self._current, "connection", None) is None:
            call()
        else:
            self._current.afterwards.append(call)

    def undone(self, call: Callable[[], object]) -> None:
        """Call something if what this thread is writing is undone; never once it is on the disk."""
        if getattr(self._current, "connection", None) is not None:
            self._current.undone.append(call)

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

    def check_fences(self) -> None:
        """Make sure that all that is `fenced` here is still held, before what no transaction takes back.

        That asks the store only where a lease was not renewed in its time, such as after this process or its
        machine stood still: it is then renewed first, unless another holder took it.

        Raises:
            FencedError: If another holder has it.
            StoreError: If that cannot be found out.
        """
        for store, lease in _FENCES.get():
            if store is self and not lease.is_fresh():
                Leases(self).renew(lease)

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
            self._database.engine.connect().execution_options(**self._database.reading) as connection,
            connection.begin(),
        ):
            yield connection

    def now(self) -> datetime:
        """The time by which due times and leases are judged: the same for all who use this store.

        Raises:
            StoreError: If the database cannot be read.
        """
        with self._translated():
            return self._database.now(getattr(self._current, "connection", None))

    @property
    def shared(self) -> bool:
        """Whether several machines may use it: then leases alone say who works on what."""
        return self._database.shared

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a name on this machine, until the block or the process ends.

        Where the store is `shared` nothing is held: that a session lives does not say that its process does.

        Args:
            name: What is held; it may stand in the name of a file.

        Raises:
            HeldError: If another process or thread holds it.
            StoreError: If that cannot be found out.
        """
        with ExitStack() as stack:
            with self._translated():
                stack.enter_context(self._database.hold(name))
            yield

    def check(self) -> None:
        """Read the whole database and say whether it is sound.

        Raises:
            StoreError: If it is damaged.
        """
        with self.reading() as connection:
            self._database.check(connection)

    def close(self) -> None:
        """Close all connections."""
        self._database.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(self._database.explain(error.orig or error)) from error
        except sqlite3.Error as error:
            raise StoreError(self._database.explain(error)) from error


def _call_each(calls: Sequence[Callable[[], object]]) -> None:
    """Call all of them in their order, whichever of them raise; the last of their errors is raised."""
    with ExitStack() as stack:
        for call in reversed(calls):
            stack.callback(call)
