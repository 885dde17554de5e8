"""The store on PostgreSQL does what it does on SQLite."""

import itertools
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import binaries, running_server
from tests.unit.test_checkpoints import (  # noqa: F401 (the same tests, on the place of this module)
    test_langgraphs_conformance_kit_passes,
    test_only_the_last_few_checkpoints_of_a_thread_are_kept,
    test_who_lost_an_incident_writes_no_checkpoint_of_it,
)
from tests.unit.test_migrations import differences
from tests.unit.test_store import alert, open_and_fail
from watchkeeper.runtime.errors import IncidentBusyError, StoreError
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.store import Store

pytestmark = pytest.mark.skipif(
    binaries() is None, reason="PostgreSQL is not installed (`make parts` installs it where it may)"
)
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server() as url:
        yield url


@pytest.fixture
def place(server: str) -> str:
    name = f"w{next(_NUMBERS)}"
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.format(name)


def test_migrations_make_what_a_new_database_has(place: str) -> None:
    assert differences(place) == []


def test_what_was_written_is_there_after_opening_again(place: str) -> None:
    with Store(place) as store:
        incident = Incidents(store).open(alert())
    with Store(place) as store:
        assert Incidents(store).get(incident.id) == incident
        store.check()


def test_a_transaction_that_raises_leaves_nothing_and_an_inner_one_is_undone_alone(place: str) -> None:
    with Store(place) as store:
        incidents = Incidents(store)
        with pytest.raises(RuntimeError, match="halfway"):
            open_and_fail(store, alert())
        with store.transaction():
            kept = incidents.open(alert(host="web-1"))
            with pytest.raises(RuntimeError, match="halfway"):
                open_and_fail(store, alert(host="web-2"))
        assert [incident.id for incident in incidents.list()] == [kept.id]


def test_stores_that_open_and_write_at_once_wait_for_each_other(place: str) -> None:
    def fill() -> None:
        with Store(place) as store:
            for _ in range(5):
                Incidents(store).open(alert())

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(place) as store:
        (incident,) = Incidents(store).list()
        assert incident.alert_count == 20


def test_an_incident_is_held_by_one_at_a_time(place: str) -> None:
    with Store(place) as one, Store(place) as other:
        incident = Incidents(one).open(alert())
        with (
            Incidents(one).lock(incident.id),
            pytest.raises(IncidentBusyError, match="process"),
            Incidents(other).lock(incident.id),
        ):
            pass
        with Incidents(other).lock(incident.id):
            pass


def test_a_reader_sees_one_state_and_writes_nothing(place: str) -> None:
    with Store(place) as store:
        with store.reading() as connection:
            count = "SELECT count(*) FROM incidents"
            assert connection.exec_driver_sql(count).scalar_one() == 0
            writer = threading.Thread(target=Incidents(store).open, args=(alert(),))
            writer.start()
            writer.join()
            assert connection.exec_driver_sql(count).scalar_one() == 0
        with pytest.raises(StoreError, match="may not be written"), store.reading() as connection:
            connection.exec_driver_sql("DELETE FROM incidents")


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        Store("postgresql://somebody:hunter2@127.0.0.1:1/w")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
