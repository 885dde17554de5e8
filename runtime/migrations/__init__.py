"""Bringing a database to the tables of this release, wholly or not at all."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, select

from watchkeeper.runtime.database import Database
from watchkeeper.runtime.errors import StoreError
from watchkeeper.runtime.schema import meta, metadata

FOLDER = Path(__file__).parent

versions = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""The table in which Alembic keeps the revision.

The same number stands in ``watchkeeper_meta``, where it stood before there was Alembic: releases of before
refuse a database that is newer than they.
"""


def revisions() -> tuple[str, ...]:
    """Return the revisions that this release knows, the oldest first."""
    return tuple(sorted(path.name[1:5] for path in (FOLDER / "versions").glob("r[0-9][0-9][0-9][0-9]_*.py")))


def newest_schema() -> int:
    """Return the number of the newest revision that this release knows."""
    return int(revisions()[-1])


def bring_up_to_date(database: Database) -> None:
    """Make the tables of an empty database, or migrate those that are there.

    Several processes may do so at once: one does it, under the write lock, and the others find it done.

    Raises:
        StoreError: If the database is not one of Watchkeeper, or was written by a newer release.
    """
    with database.engine.connect().execution_options(**database.reading) as connection, connection.begin():
        if _revision(database, connection) == revisions()[-1] and inspect(connection).has_table(
            versions.name
        ):
            return
    with database.migrating() as connection:
        # Another process may have done so while this one waited for the write lock.
        found = _revision(database, connection)
        if found is None:
            metadata.create_all(connection)
            connection.execute(meta.insert().values(name="schema", value=str(newest_schema())))
            _set_revision(connection, revisions()[-1])
        elif found != revisions()[-1]:
            migrate(connection, found)


def schema_of(database: Database) -> int | None:
    """Return the number of a database's revision, changing nothing; None if the database is empty.

    Raises:
        StoreError: If it is not one of Watchkeeper, or of a revision that this release does not know.
    """
    with database.engine.connect().execution_options(**database.reading) as connection, connection.begin():
        found = _revision(database, connection)
    return None if found is None else int(found)


def _revision(database: Database, connection: Connection) -> str | None:
    """Return the revision of a database; None if it is empty."""
    names = set(inspect(connection).get_table_names())
    if not names:
        return None
    if meta.name not in names:
        raise StoreError(
            f"{database.place!r} is a database, but not one of Watchkeeper; choose another WATCHKEEPER_HOME "
            "or WATCHKEEPER_STORE"
        )
    found = connection.execute(select(meta.c.value).where(meta.c.name == "schema")).scalar()
    if found is None or not found.isdecimal():
        raise StoreError(database.damaged(f"its schema version is {found!r}"))
    revision = f"{int(found):04}"
    if revision not in revisions():
        raise StoreError(
            f"database {database.place!r} has schema {int(found)}, this Watchkeeper knows "
            f"{newest_schema()}: it was written by another release; use that one, or {database.anew}"
        )
    return revision


def migrate(connection: Connection, found: str | None) -> None:
    """Run all migrations that come after a revision, within the transaction of the caller.

    Args:
        connection: A connection that holds the write lock.
        found: The revision of the database; None runs all of them on an empty one.
    """
    from alembic import command
    from alembic.config import Config

    if found is not None:
        _set_revision(connection, found)
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.execute(meta.update().where(meta.c.name == "schema").values(value=str(newest_schema())))


def _set_revision(connection: Connection, revision: str) -> None:
    versions.create(connection, checkfirst=True)
    connection.execute(versions.delete())
    connection.execute(versions.insert().values(version_num=revision))
