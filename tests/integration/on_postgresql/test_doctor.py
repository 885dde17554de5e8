"""The doctor looks at a database on a server and writes nothing into it, whatever it finds."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.postgres import Server
from tests.unit.test_store import alert
from watchkeeper.runtime.doctor import Found, examine
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.leases import Leases
from watchkeeper.runtime.migrations import newest_schema
from watchkeeper.runtime.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home


def found(server: Server, home: Path, url: str) -> list[Found]:
    """What is found of a database in which every session that writes is refused."""
    name = url.partition("?")[0].rpartition("/")[2]
    server.do(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    (home / "config.yaml").write_text(f"store: {url}\n")
    return [one for one in examine(home) if one.area in {"database", "incident"}]


def tables(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_an_empty_database_stays_empty(server: Server, home: Path) -> None:
    url = server.new_database(empty=True)
    (one,) = found(server, home, url)
    assert (one.wrong, one.what) == (False, "is empty: nothing happened here")
    assert tables(url) == 0


def test_one_of_an_older_release_is_not_migrated(server: Server, home: Path) -> None:
    url = server.new_database()
    older = newest_schema() - 1
    with psycopg.connect(url) as connection:
        connection.execute(f"UPDATE watchkeeper_meta SET value = '{older}' WHERE name = 'schema'")
    (one,) = found(server, home, url)
    assert not one.wrong
    assert one.what == f"has schema {older} and becomes {newest_schema()} when it is opened next"
    with psycopg.connect(url) as connection:
        kept = connection.execute("SELECT value FROM watchkeeper_meta WHERE name = 'schema'").fetchone()
    assert kept == (str(older),)


def test_one_of_a_newer_release_and_one_of_others_are_told(server: Server, home: Path) -> None:
    url = server.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE watchkeeper_meta SET value = '9999' WHERE name = 'schema'")
    (one,) = found(server, home, url)
    assert (one.wrong, "written by another release" in one.what) == (True, True)
    other = server.new_database(empty=True)
    with psycopg.connect(other) as connection:
        connection.execute("CREATE TABLE songs (title text)")
    (one,) = found(server, home, other)
    assert (one.wrong, "not one of Watchkeeper" in one.what, tables(other)) == (True, True, 1)


def test_records_are_judged_where_nothing_may_be_written(server: Server, home: Path) -> None:
    url = server.new_database()
    with Store(url) as store:
        incident = Incidents(store).open(alert())
    (one,) = found(server, home, url)
    assert (one.wrong, incident.id in one.place) == (False, True)
    assert "nobody began to work on it" in one.what


def test_an_incident_is_worked_on_while_its_lease_lasts(server: Server, home: Path) -> None:
    url = server.new_database()
    with Store(url) as store:
        incident = Incidents(store).open(alert())
        with Incidents(store).lock(incident.id):
            assert found(server, home, url) == []
        (one,) = found(server, home, url)
        assert "nobody began to work on it" in one.what
        Leases(store).acquire(f"incident:{incident.id}", "a process that died", seconds=-1)
        assert len(found(server, home, url)) == 1
