"""What is PostgreSQL's own: writers wait for each other, and not for those that hang."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.postgres import Server
from tests.unit.test_migrations import differences
from tests.unit.test_store import alert, open_and_fail
from watchkeeper.runtime import database_postgresql
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.errors import FencedError, IncidentBusyError, StoreError
from watchkeeper.runtime.halt import Halts
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.leases import Leases
from watchkeeper.runtime.store import Store


@pytest.fixture
def place(server: Server) -> str:
    return server.new_database(empty=True)


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
            pytest.raises(IncidentBusyError, match=r"by process .*, at most until \d\d:\d\d:\d\d UTC if"),
            Incidents(other).lock(incident.id),
        ):
            pass
        with Incidents(other).lock(incident.id):
            pass


def test_who_is_silent_for_longer_than_the_lease_loses_though_the_session_lives(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(place) as one, Store(place) as other:
        incident = Incidents(one).open(alert())
        # Nobody renews: the process hangs.
        monkeypatch.setattr(Leases, "_keep", lambda *_: None)
        with Incidents(one).lock(incident.id, seconds=0.5) as lease:
            assert lease.is_fresh()
            time.sleep(0.5)
            assert not lease.is_fresh()
            # Nobody took it: it may go on, once it has the lease again.
            one.check_fences()
            assert lease.is_fresh()
            time.sleep(0.5)
            with Incidents(other).lock(incident.id) as taken:
                assert taken.fence == lease.fence + 1
                with pytest.raises(FencedError, match="taken over"):
                    one.check_fences()
                with pytest.raises(FencedError, match="taken over"):
                    Incidents(one).open(alert())
            assert Incidents(other).get(incident.id).alert_count == 1


def test_a_process_that_hangs_while_it_writes_is_not_waited_for(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_postgresql, "_IDLE_SECONDS", 1)
    with Store(place) as one, Store(place) as other:
        incident = Incidents(other).open(alert())
        hangs, written = threading.Event(), threading.Event()

        def write() -> None:
            hangs.wait()
            Incidents(other).open(alert())
            written.set()

        thread = threading.Thread(target=write)
        thread.start()

        def hang() -> None:
            with one.transaction():
                Incidents(one).open(alert())
                hangs.set()
                assert written.wait(30)
                Incidents(one).get(incident.id)

        with pytest.raises(StoreError, match="hung"):
            hang()
        thread.join()
        assert Incidents(one).get(incident.id).alert_count == 2


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_who_waited_for_another_reads_what_it_wrote_whatever_the_servers_default(
    server: Server, place: str, level: str
) -> None:
    name = place.partition("?")[0].rpartition("/")[2]
    server.do(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    test_stores_that_open_and_write_at_once_wait_for_each_other(place)


def test_a_nul_in_a_text_is_kept_as_its_symbol(place: str, tmp_path: Path) -> None:
    with Store(place) as store:
        Halts(store, AuditLog(tmp_path)).stop(by="ann", reason="smoke\0 and \0fire")
        halt = Halts(store, AuditLog(tmp_path)).current()
        assert halt is not None
        assert halt.reason == "smoke\N{SYMBOL FOR NULL} and \N{SYMBOL FOR NULL}fire"
        incident = Incidents(store).open(alert(title="api\0 is down"))
        assert Incidents(store).get(incident.id).alert.title == "api\0 is down"
        jobs = Jobs(store)
        assert jobs.add("toy", {"what": "a\0b"}, key="k\0") == jobs.find("k\0")
        assert jobs.hurry("k\0")
        claim = jobs.claim("one")
        assert claim is not None
        assert claim.job.body == {"what": "a\0b"}
        assert jobs.fail(claim, "no\0luck").error == "no\N{SYMBOL FOR NULL}luck"


def test_time_is_the_servers(place: str) -> None:
    with Store(place) as store:
        with psycopg.connect(place) as connection:
            (told,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
        assert isinstance(told, datetime)
        assert timedelta(0) < store.now() - told < timedelta(seconds=30)
        assert store.now().tzinfo is UTC
        # Within a transaction it goes on, too.
        with store.transaction():
            before = store.now()
            time.sleep(0.001)
            assert store.now() > before
        assert Incidents(store).open(alert()).opened_at < store.now()


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
