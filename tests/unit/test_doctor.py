"""The doctor says nothing of a sound home, and finds each kind of damage with its place and what to do."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper.cli import build_app
from watchkeeper.runtime import doctor
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.doctor import Found, Gravity, examine
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.journal import Journal
from watchkeeper.tools.sandbox import Sandbox


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A home with an incident that ended, and one that waits."""
    with folder_in_memory() as folder:
        lamp = Lamp.dark(folder, switch="off")
        home = folder / "home"
        with orchestrator(home, lamp, prefers("switch")) as o:
            incident = o.open(ALERT).id
            for event in o.resume(incident):
                if event.kind == "approval-requested":
                    o.answer(event.approval_id, "approve", by="bob")
            lamp.put("switch", "off")
            list(o.resume(o.open(ALERT).id, wait=False))
        (home / "inventory.yaml").write_text("hosts: [{name: house}]\n")
        (home / "policy.yaml").write_text(ALLOW)
        yield home


@pytest.fixture
def home(made: Path) -> Iterator[Path]:
    with folder_in_memory() as folder:
        shutil.copytree(made, folder / "home")
        (folder / "home").chmod(0o700)
        yield folder / "home"


def wrong(home: Path, **changes: datetime) -> list[Found]:
    at = changes.get("at", datetime.now(UTC))
    return [found for found in examine(home, now=lambda: at) if found.wrong]


def sql(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "watchkeeper.db")) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement
        connection.commit()


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_a_sound_home_is_well_and_untouched(home: Path) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert wrong(home) == []
    kinds = {found.area for found in examine(home)}
    assert "incident" in kinds  # one waits, which is no fault
    after = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert {p: c for p, c in after.items() if "-shm" not in p.name and "-wal" not in p.name} == before


def test_no_home_yet_is_nothing_wrong(tmp_path: Path) -> None:
    assert wrong(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


SQL = [
    ("UPDATE effects SET state = 'intended'", "effect in doubt", "whether it took place is not known"),
    ("DELETE FROM effects", "approval", "was used, and no effect used it"),
    ("DELETE FROM effects", "step", "the ledger knows of no effect"),
    ("UPDATE approvals SET status = 'expired' WHERE status = 'used'", "approval", "and an effect used it"),
    ("UPDATE effects SET step_id = 'INC-X-S1'", "database", "belongs to a row of 'steps' that is not there"),
    ("DELETE FROM checkpoints", "incident", "where it stands is not kept"),
    (
        "UPDATE incidents SET status = 'closed' WHERE status = 'awaiting-approval'",
        "approval",
        "waits for an answer, and incident",
    ),
    ("UPDATE watchkeeper_meta SET value = '999' WHERE name = 'schema'", "database", "has schema 999"),
    ("UPDATE events SET at = '2999-01-01T00:00:00.000000Z' WHERE seq = 1", "clock", "in the future"),
]


@pytest.mark.parametrize(("statement", "area", "said"), SQL)
def test_records_that_cannot_be_are_found(home: Path, statement: str, area: str, said: str) -> None:
    sql(home, statement)
    found = wrong(home)
    assert any(item.area == area and said in item.what and item.advice for item in found), found
    assert all("\n" not in item.what for item in found)


def dead_job(home: Path, key: str, kind: str = "incident.run") -> None:
    columns = "kind, key, status, due_at, body, attempts, fence, error, created_at"
    with closing(sqlite3.connect(home / "watchkeeper.db")) as connection:
        connection.execute(
            f"INSERT INTO jobs ({columns}) VALUES (?, ?, 'dead', ?, '{{}}', 5, 5, 'no model', ?)",
            (kind, key, *["2026-01-01T00:00:00.000000Z"] * 2),
        )
        connection.commit()


def test_work_that_was_put_aside_is_told_until_it_is_settled(home: Path) -> None:
    with Journal(home) as journal:
        waiting = next(one.id for one in journal.incidents.list() if not one.status.ended)
        over = next(one.id for one in journal.incidents.list() if one.status.ended)
    dead_job(home, f"incident.run:{over}")
    assert wrong(home) == []  # its incident has ended
    dead_job(home, f"incident.run:{waiting}")
    (found,) = wrong(home)
    assert (found.area, found.what) == ("job", "failed too often and was put aside: no model")
    with Journal(home) as journal:
        Jobs(journal.store).add("incident.run", {"incident": waiting}, key=f"incident.run:{waiting}")
    assert wrong(home) == []  # it was begun again


def test_a_question_past_its_deadline_is_found(home: Path) -> None:
    (found,) = wrong(home, at=datetime.now(UTC) + timedelta(hours=2))
    assert (found.area, found.gravity) == ("approval", Gravity.WARNING)
    assert "was not answered before" in found.what
    assert "run --resume INC-" in found.advice


def test_a_clock_that_was_set_back_is_found(home: Path) -> None:
    found = wrong(home, at=datetime.now(UTC) - timedelta(days=2))
    assert {item.area for item in found} == {"clock"}
    ago = datetime.now(UTC) - timedelta(days=1)
    AuditLog(home, now=lambda: ago).append("step", {})
    (one,) = wrong(home)
    assert "the clock was set back" in one.what
    assert f"entry {len(list(AuditLog(home).entries()))}" in one.place


def test_a_damaged_database_is_found(home: Path) -> None:
    def spoil(content: bytes) -> bytes:
        middle = len(content) // 2 // 4096 * 4096
        return content[:middle] + b"\xff" * 8192 + content[middle + 8192 :]

    rewrite(home / "watchkeeper.db", spoil)
    found = wrong(home)
    assert found[0].area == "database"
    assert "watchkeeper restore" in found[0].advice
    (home / "watchkeeper.db").write_bytes(b"nonsense" * 1000)
    assert "cannot be read" in wrong(home)[0].what


def restamp(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    entry = json.loads(lines[2])
    return content.replace(entry["at"].encode(), b"2020-01-01T00:00:00.000000Z", 1)


AUDIT = [
    (lambda content: content.replace(b"dark", b"dim!", 1), "line 1", "is not the one that was signed"),
    (lambda content: b"".join(content.splitlines(keepends=True)[:-2]), "line", "the tail was cut"),
    (restamp, "line 3", "entry 3 is not the one that was signed"),
]


@pytest.mark.parametrize(("change", "place", "said"), AUDIT)
def test_a_changed_audit_log_is_found_with_its_place(
    home: Path, change: Callable[[bytes], bytes], place: str, said: str
) -> None:
    rewrite(home / "audit" / "audit.jsonl", change)
    found = [item for item in wrong(home) if item.area == "audit"]
    assert any(place in item.place and said in item.what for item in found), found


def test_a_key_that_is_lost_or_open_is_found(home: Path) -> None:
    (home / "keys" / "audit.key").chmod(0o644)
    assert [(item.area, item.advice.split()[0]) for item in wrong(home)] == [("audit key", "chmod")]
    (home / "keys" / "audit.key").unlink()
    assert "is missing" in wrong(home)[0].what


def test_a_home_that_others_can_read_is_found(home: Path) -> None:
    home.chmod(0o755)
    (found,) = wrong(home)
    assert (found.area, found.place, found.advice) == ("home", str(home), f"chmod go-rwx {home}")


@pytest.mark.parametrize(
    ("name", "content", "area"),
    [
        ("config.yaml", "max_actions: many\n", "configuration"),
        ("inventory.yaml", "hosts: [{nam: house}]\n", "inventory"),
        ("policy.yaml", "version: 1\nrules: [{name: r, decision: perhaps}]\n", "policy"),
        ("escalation.yaml", "version: nine\n", "escalation rules"),
        ("runs/INC-7K3Q.json", "{", "run file"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_found(home: Path, name: str, content: str, area: str) -> None:
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).write_text(content)
    (found,) = wrong(home)
    assert found.area == area
    assert Path(name).name in found.what or Path(name).name in found.place


@pytest.mark.parametrize(("free", "gravity"), [(100 << 20, Gravity.WARNING), (1 << 20, Gravity.ERROR)])
def test_a_disk_that_is_nearly_full_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch, free: int, gravity: Gravity
) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    (found,) = wrong(home)
    assert (found.area, found.gravity) == ("disk", gravity)


def test_what_a_living_process_works_on_is_left_to_it_and_locks_of_the_dead_are_fine(home: Path) -> None:
    sql(home, "UPDATE effects SET state = 'intended' WHERE incident_id IN (SELECT id FROM incidents)")
    with Journal(home) as journal:
        ended = journal.incidents.list()[1].id
        with journal.incidents.lock(ended):
            assert wrong(home) == []
    assert (home / "locks" / f"{ended}.lock").exists()
    assert [item.area for item in wrong(home)] == ["effect in doubt"]


def test_a_model_that_is_not_whole_is_found_where_that_is_asked(home: Path) -> None:
    folder = home / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"cut")
    assert wrong(home) == []
    (found,) = [item for item in examine(home, models=True) if item.wrong]
    assert (found.area, found.place) == ("models", "smollm2-135m-instruct")


def test_the_command_ends_with_1_if_anything_is_wrong(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    well = CliRunner().invoke(build_app(), ["doctor"], catch_exceptions=False)
    notes = sum(line.startswith("note: ") for line in well.stdout.splitlines())
    told = {1: "1 note"}.get(notes, f"{notes} notes")
    assert notes > 0
    assert (well.exit_code, well.stdout.splitlines()[-1]) == (0, f"{home}: all is well, {told}")
    home.chmod(0o777)
    ill = CliRunner().invoke(build_app(), ["doctor"], catch_exceptions=False)
    assert (ill.exit_code, ill.stdout.splitlines()[-1]) == (1, f"{home}: 1 thing is wrong, {told}")
    told = json.loads(CliRunner().invoke(build_app(), ["doctor", "--json"]).stdout)
    assert (told["ok"], told["found"][0]["gravity"]) == (False, "warning")


def test_a_sandbox_that_is_missing_is_noted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_sandbox", lambda: Sandbox("", "", "bubblewrap is not installed"))
    (found,) = [one for one in examine(home) if one.area == "sandbox"]
    assert "WITHOUT a full sandbox: bubblewrap is not installed" in found.what
    assert not found.wrong


def test_a_stop_is_named_with_the_command_that_lifts_it(home: Path) -> None:
    with Journal(home) as journal:
        journal.halts.stop(by="ann", reason="smoke")
    (found,) = [one for one in examine(home) if one.area == "stop"]
    assert found.place == str(home / "watchkeeper.db")
    assert found.what.startswith("is stopped as a whole, by 'ann' since ")
    assert found.what.endswith(" UTC: smoke")
    assert found.advice == "when work may go on: watchkeeper stop --lift"


@pytest.mark.parametrize(
    ("wrong", "notes", "said"),
    [
        (0, 0, "all is well"),
        (0, 1, "all is well, 1 note"),
        (1, 0, "1 thing is wrong"),
        (2, 3, "2 things are wrong, 3 notes"),
    ],
)
def test_what_was_found_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int, notes: int, said: str
) -> None:
    def made(gravity: Gravity) -> Found:
        return Found(gravity=gravity, area="home", place="x", what="is so")

    found = (*[made(Gravity.ERROR)] * wrong, *[made(Gravity.NOTE)] * notes)
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: found)
    ended = CliRunner().invoke(build_app(), ["doctor", "--home", str(tmp_path)])
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (min(wrong, 1), f"{tmp_path}: {said}")


def test_a_wrong_variable_is_told_and_ends_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_MAX_ACTIONS", "abc")
    assert any("WATCHKEEPER_MAX_ACTIONS" in found.what for found in wrong(home))


def test_what_an_inventory_names_and_is_not_there_is_told(home: Path, tmp_path: Path) -> None:
    there = tmp_path / "shop.ini"
    there.touch()
    text = (
        "hosts: [{name: house, services: [{name: shop,"
        f" supervisor: {{kind: supervisord, socket: {tmp_path}/sock}},"
        f" logs: [{tmp_path}/shop.log, {tmp_path}/logs/shop.log], config: [{there}, {tmp_path}/web.ini],"
        f" data: [{tmp_path}, {tmp_path}/data]}}]}}]\n"
    )
    (home / "inventory.yaml").write_text(text)
    told = {f.what: f.gravity for f in examine(home) if f.area == "inventory"}
    place = f"names '{tmp_path}"
    assert told == {
        f"{place}/sock', socket of supervisord of service shop, which is not there": Gravity.WARNING,
        f"{place}/shop.log', log of service shop, which is not there yet": Gravity.NOTE,
        f"{place}/logs/shop.log', log of service shop, which is not there": Gravity.WARNING,
        f"{place}/web.ini', configuration of service shop, which is not there": Gravity.WARNING,
        f"{place}/data', data of service shop, which is not there": Gravity.WARNING,
    }
