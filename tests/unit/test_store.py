"""The store keeps what was committed, and says in one line why it cannot."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounts import mounted
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_keys import create_keys
from watchkeeper.runtime.errors import AuditError, OperationError, StoreError
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.store import Store


def alert(title: str = "api is down", host: str = "web-1") -> Alert:
    return Alert.model_validate(
        {"title": title, "host": host, "condition": {"kind": "http", "url": "http://127.0.0.1:8080/"}}
    )


def open_and_fail(store: Store, raised: Alert) -> None:
    with store.transaction():
        Incidents(store).open(raised)
        raise RuntimeError("halfway")


def count_until_refused(attempt: Callable[[int], object]) -> tuple[int, OperationError]:
    for number in range(5000):
        try:
            attempt(number)
        except OperationError as error:
            return number, error
    raise AssertionError("the disk never filled")


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    with Store(tmp_path / "deep" / "w.db") as store:
        incident = Incidents(store).open(alert())
    with Store(tmp_path / "deep" / "w.db") as store:
        assert Incidents(store).get(incident.id) == incident


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can open a store in a folder of another user")
def test_root_creates_the_store_for_the_user_whose_folder_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    with Store(home / "w.db") as store:
        Incidents(store).open(alert())
        owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in home.iterdir()}
    assert set(owners) == {"w.db", "w.db-wal", "w.db-shm"}
    assert set(owners.values()) == {(65534, 65534)}


def test_writes_are_synchronous_and_in_wal(tmp_path: Path) -> None:
    with Store(tmp_path / "w.db") as store, store.reading() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_what_is_kept_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with Store(tmp_path / "home" / "w.db") as store:
        Incidents(store).open(alert())
        kept = [tmp_path / "home", *(tmp_path / "home").iterdir()]
        assert len(kept) == 4
        assert [path for path in kept if path.stat().st_mode & 0o077] == []


def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "w.db") as store:
        incidents = Incidents(store)
        with pytest.raises(RuntimeError, match="halfway"):
            open_and_fail(store, alert())
        assert incidents.list() == ()


def test_an_inner_block_that_raises_is_undone_alone(tmp_path: Path) -> None:
    with Store(tmp_path / "w.db") as store:
        incidents = Incidents(store)
        with store.transaction():
            kept = incidents.open(alert(host="web-1"))
            with pytest.raises(RuntimeError, match="halfway"):
                open_and_fail(store, alert(host="web-2"))
        assert [i.id for i in incidents.list()] == [kept.id]


def test_one_that_is_called_afterwards_and_fails_keeps_no_other_from_being_called(tmp_path: Path) -> None:
    called: list[str] = []

    def fail() -> None:
        called.append("fails")
        raise RuntimeError("no")

    def write(store: Store, *, halfway: bool) -> None:
        with store.transaction():
            store.undone(lambda: called.append("undone"))
            store.afterwards(fail)
            store.afterwards(lambda: called.append("next"))
            if halfway:
                raise ValueError("halfway")

    with Store(tmp_path / "w.db") as store:
        with pytest.raises(RuntimeError, match="no"):
            write(store, halfway=False)
        assert called == ["fails", "next"]
        with pytest.raises(ValueError, match="halfway"):
            write(store, halfway=True)
    assert called == ["fails", "next", "undone"]


def test_what_must_be_on_the_disk_at_once_is_not_written_inside_another_transaction(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "w.db") as store,
        store.transaction(),
        pytest.raises(StoreError, match="inside another transaction"),
        store.transaction(outermost=True),
    ):
        pass


def test_a_reader_sees_one_state_while_another_thread_writes(tmp_path: Path) -> None:
    with Store(tmp_path / "w.db") as store:
        incidents = Incidents(store)
        incidents.open(alert(host="web-1"))
        with store.reading() as connection:
            count = "SELECT count(*) FROM incidents"
            before = connection.exec_driver_sql(count).scalar_one()
            writer = threading.Thread(target=incidents.open, args=(alert(host="web-2"),))
            writer.start()
            writer.join()
            assert connection.exec_driver_sql(count).scalar_one() == before == 1
        assert len(incidents.list()) == 2


def test_eight_processes_may_create_and_fill_one_database_at_once(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from watchkeeper.runtime.store import Store\nfrom watchkeeper.runtime.incidents import Incidents\n"
        "from watchkeeper.runtime.alerts import Alert\n"
        "incidents = Incidents(Store(Path(sys.argv[1])))\n"
        "for n in range(3):\n"
        "    incidents.open(Alert.model_validate({'title': 't', 'host': f'h{sys.argv[2]}-{n}',"
        " 'condition': {'kind': 'http', 'url': 'http://x/'}}))\n"
    )
    path = tmp_path / "w.db"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(n)], stderr=subprocess.PIPE, text=True
        )
        for n in range(8)
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    with Store(path) as store:
        assert len(Incidents(store).list()) == 24
        store.check()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    path.write_bytes(b"not a database at all, but long enough to look at" * 50)
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert "is damaged" in one_line(caught.value)
    assert str(path) in str(caught.value)
    assert "backup" in str(caught.value)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="not one of Watchkeeper"):
        Store(path)


def test_damage_inside_the_database_is_found_by_a_check(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    with Store(path) as store:
        incidents = Incidents(store)
        for n in range(200):
            incidents.open(alert(title="x" * 200, host=f"web-{n}"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 9000] = b"\xff" * 9000
    path.write_bytes(bytes(content))
    with Store(path) as store, pytest.raises(StoreError) as caught:
        store.check()
    assert "is damaged" in one_line(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "file" / "w.db")
    assert repr(str(tmp_path / "file")) in one_line(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small") as folder:
        yield folder


def test_a_full_disk_loses_nothing_and_says_what_to_do(small_disk: Path) -> None:
    path = small_disk / "w.db"
    store = Store(path)
    incidents = Incidents(store)
    written, error = count_until_refused(
        lambda number: incidents.open(alert(title="x" * 300, host=f"web-{number}"))
    )
    text = one_line(error)
    assert isinstance(error, StoreError)
    assert "no space left" in text
    assert repr(str(path)) in text
    assert "free some space" in text
    assert written > 5
    store.close()

    moved = small_disk.parent / "moved"
    shutil.copytree(small_disk, moved)
    with Store(moved / "w.db") as found:
        found.check()
        assert len(Incidents(found).list(limit=9999)) == written


def test_a_disk_that_is_full_from_the_start_is_one_line_too(small_disk: Path) -> None:
    filled = subprocess.run(
        ["dd", "if=/dev/zero", f"of={small_disk / 'filler'}", "bs=4k"], capture_output=True
    )
    assert b"No space left" in filled.stderr
    with pytest.raises(OperationError) as caught:
        Store(small_disk / "w.db")
    assert "no space left" in one_line(caught.value)


def test_a_full_disk_stops_the_audit_log_between_two_entries(small_disk: Path) -> None:
    log = AuditLog(small_disk)
    written, error = count_until_refused(lambda _: log.append("filler", {"text": "x" * 1500}))
    assert isinstance(error, AuditError)
    assert "cannot be written" in one_line(error)
    report = log.verify()
    assert report.ok, report.problems
    assert report.entries in {written, written + 1}


def test_an_audit_log_that_could_not_begin_begins_when_there_is_room(small_disk: Path) -> None:
    filler = small_disk / "filler"
    log = AuditLog(small_disk)
    log.folder.mkdir()
    log.keys.mkdir()
    create_keys(log.keys)
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True)
    with pytest.raises(AuditError, match="cannot be written"):
        log.append("step", {})
    filler.unlink()
    log.append("step", {})
    assert log.verify().ok
