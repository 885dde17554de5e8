"""The store on PostgreSQL: one database, any number of processes of any number of machines."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError

from watchkeeper.runtime.database import HeldError
from watchkeeper.runtime.errors import StoreError

_BUSY_SECONDS = 30
_WRITE_LOCK = 0x77617463686B6565
"""Key of the advisory lock that every transaction that writes takes first."""

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
    first statement to its end. A password is best kept out of the URL: libpq also reads ``PGPASSWORD``,
    ``PGPASSFILE`` and ``~/.pgpass``.

    Args:
        url: Where it is.

    Raises:
        StoreError: If the extra ``postgres`` is not installed.
    """

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

    def now(self, connection: Connection | None) -> datetime:
        """The time of the server."""
        if connection is None:
            with self.engine.connect().execution_options(**self.reading) as own:
                return self.now(own)
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a name for as long as one connection of this process lives.

        Raises:
            HeldError: If another process or thread holds it.
        """
        key = int.from_bytes(hashlib.sha256(f"watchkeeper:{name}".encode()).digest()[:8], "big", signed=True)
        options = {"isolation_level": "AUTOCOMMIT"}
        with self.engine.connect().execution_options(**options) as connection:
            taken = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar_one()
            if not taken:
                raise HeldError(_holder(connection, key))
            try:
                yield
            finally:
                # A connection that was lost has lost the lock too.
                with suppress(DBAPIError):
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})

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
        pool_pre_ping=True,
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
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _holder(connection: Connection, key: int) -> str:
    bits = key % (1 << 64)
    name = connection.execute(
        text(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND classid::bigint = :high AND objid::bigint = :low"
        ),
        {"high": bits >> 32, "low": bits & 0xFFFFFFFF},
    ).scalar()
    return f"process {str(name or '').removeprefix('watchkeeper ') or 'unknown'}"
