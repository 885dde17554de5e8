"""The store on PostgreSQL: one database, any number of processes of any number of machines."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select

from watchkeeper.runtime.errors import StoreError

_BUSY_SECONDS = 30
_IDLE_SECONDS = 15
"""Seconds after which a process that hangs in the middle of writing loses its transaction."""

_WRITE_LOCK = 0x77617463686B6565
"""Key of the advisory lock that every transaction that writes takes first."""

_NUL = "\N{SYMBOL FOR NULL}"
"""What is kept of a NUL in a text: PostgreSQL's texts hold none."""

_SESSION = (
    f"SET lock_timeout = '{_BUSY_SECONDS}s'",
    # Anything weaker could lose an intent whose effect was done.
    (
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
    ),
    # A machine that vanished gives up what it held after about a minute.
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)


class PostgresqlDatabase:
    """A database of a PostgreSQL server, for Watchkeeper alone.

    Writers are serialised as they are on SQLite: a transaction that writes holds one advisory lock from its
    first statement to its end. A process that hangs meanwhile loses it after 15 seconds, and its transaction
    is undone. A password is best kept out of the URL: libpq also reads ``PGPASSWORD``,
    ``PGPASSFILE`` and ``~/.pgpass``.

    Args:
        url: Where it is.

    Raises:
        StoreError: If the extra ``postgres`` is not installed.
    """

    shared = True
    reading: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    anew = "name an empty one to start anew"

    def __init__(self, url: URL) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise StoreError(
                "a store on PostgreSQL needs psycopg, which is not installed: "
                "pip install 'watchkeeper[postgres]'"
            )
        kept = {name: value for name, value in url.query.items() if name in {"host", "port"}}
        shown = url.set(drivername="postgresql", password=None, query=kept)
        self.place = shown.render_as_string()
        self.engine = _engine(url.set(drivername="postgresql+psycopg"))

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Open a transaction with the write lock, in which tables may be changed."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def writing(self) -> AbstractContextManager[None]:
        """Nothing: whoever waits for the server's lock is woken when it is free."""
        return nullcontext()

    def now(self, connection: Connection | None) -> datetime:
        """The time of the server."""
        if connection is None:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as own:
                return self.now(own)
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    def hold(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002 (leases decide)
        """Hold nothing.

        The session of a process that hangs lives on as long as its machine does, and would keep what it
        holds; that of one that works may be lost. A lease tells them apart.
        """
        return nullcontext()

    def check(self, connection: Connection) -> None:
        """Read every row of every table."""
        tables = connection.exec_driver_sql(
            "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema()"
        )
        for table in tables.scalars().all():
            connection.exec_driver_sql(f"SELECT count(t::text) FROM {table} AS t")  # noqa: S608 (quoted)

    def explain(self, error: BaseException) -> str:
        """Say in one line what an error of the driver means and what to do."""
        state = getattr(error, "sqlstate", None) or ""
        place = repr(self.place)
        said = " ".join(str(error).split())
        if state == "53100":
            return f"no space left for database {place}: nothing of this was written; free some and try again"
        if state == "25P03":
            return (
                f"database {place}: this process hung for {_IDLE_SECONDS} s while it wrote, "
                "so that was undone: look what held it up, and try again"
            )
        if state == "55P03":
            return (
                f"database {place} was locked by another process for {_BUSY_SECONDS} s; "
                "look for one that hangs (pg_stat_activity), and try again"
            )
        if state in {"XX001", "XX002"}:
            return self.damaged(said)
        if state in {"42501", "25006"}:
            return (
                f"database {place} may not be written ({said:.120}): give this role the right to, or another"
            )
        if not state or state[:2] in {"08", "28", "3D", "57"}:
            return (
                f"database {place} cannot be reached ({said:.300}): see that the server runs, "
                "and check the name, user and password"
            )
        return f"database {place}: {said:.300}"

    def damaged(self, what: str) -> str:
        """Say that the database is damaged, and what to do."""
        said = " ".join(what.split())
        return (
            f"database {self.place!r} is damaged ({said:.120}): restore it from a backup, or {self.anew}; "
            "the audit log is kept apart from it and still tells what was done"
        )


def _engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        # Whoever waited for the write lock reads what the one before wrote, whatever the server's default.
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        # Every thread that works has a connection while it writes; the server says how many there may be.
        max_overflow=-1,
        hide_parameters=True,
        connect_args={
            "application_name": f"watchkeeper {socket.gethostname()}:{os.getpid()}",
            "connect_timeout": _BUSY_SECONDS,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    )

    def prepare(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
        connection.commit()

    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("postgresql_readonly") and options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(
                f"SELECT pg_advisory_xact_lock({_WRITE_LOCK}),"
                f" set_config('idle_in_transaction_session_timeout', '{_IDLE_SECONDS}s', true)"
            )

    def without_nul(_c: Any, _cursor: Any, statement: str, given: Any, _x: Any, _many: bool) -> Any:
        return statement, _without_nul(given)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "before_cursor_execute", without_nul, retval=True)
    event.listen(engine, "begin", begin)
    return engine


def _without_nul(given: Any) -> Any:
    """Return parameters of a statement without any NUL in their texts."""
    if isinstance(given, str):
        return given.replace("\0", _NUL)
    if isinstance(given, Mapping):
        return {name: _without_nul(value) for name, value in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(_without_nul(value) for value in given)
    return given
