"""Audit entries are exported and dropped in ways that anyone can check, and nobody can imitate."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rfc8785
from typer.testing import CliRunner

from tests.killing import killed_at
from tests.lamp import folder_in_memory
from watchkeeper.cli import audit as command
from watchkeeper.runtime import audit, audit_check, audit_prune
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_export import export_log, verify_export
from watchkeeper.runtime.audit_keys import load_private
from watchkeeper.runtime.audit_prune import prune_log
from watchkeeper.runtime.audit_records import RESTORED, AuditReport, Checkpoint
from watchkeeper.runtime.errors import AuditError
from watchkeeper.runtime.roles import Role
from watchkeeper.runtime.users import User, Users, change_users

STRANGER = 65534
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def hours() -> Iterator[datetime]:
    at = NOON
    while True:
        yield at
        at += timedelta(minutes=30)  # an entry is asked for its time, and then its checkpoint


def standing(moment: datetime) -> Callable[[], datetime]:
    """Return a clock that stands still."""
    return lambda: moment


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    times = hours()
    log = AuditLog(tmp_path / "home", now=lambda: next(times))
    for number in range(1, 7):
        log.append("step", {"number": number, "incident_id": f"INC-{number % 2}"})
    return log


def at(log: AuditLog, number: int) -> datetime:
    return next(entry.at for entry in log.entries() if entry.seq == number)


def places(log: AuditLog) -> list[str]:
    return [f"{p.file}:{p.line} {p.what}" for p in log.verify().problems]


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def restamped(lines: list[bytes], first: int) -> list[bytes]:
    """Move an entry to another time and mend every hash after it, as who has no key would."""
    entries = [json.loads(line) for line in lines]
    entries[first - 1]["at"] = "2020-01-01T00:00:00.000000Z"
    new = [line.rstrip(b"\n") for line in lines[: first - 1]]
    for entry in entries[first - 1 :]:
        entry["previous"] = hashlib.sha256(new[-1]).hexdigest() if new else "0" * 64
        new.append(rfc8785.dumps(entry))
    return [line + b"\n" for line in new]


@pytest.mark.parametrize("place", [1, 3, 6])
def test_a_restamped_entry_is_found_at_its_place(log: AuditLog, place: int) -> None:
    rewrite(log.path, lambda lines: restamped(lines, place))
    found = places(log)
    assert found[0].startswith(f"audit.jsonl:{place} entry {place} is not the one that was signed")
    assert len(found) == 7 - place


def test_a_forged_checkpoint_is_found_at_its_place(log: AuditLog, tmp_path: Path) -> None:
    stranger = AuditLog(tmp_path / "stranger", now=lambda: NOON)
    stranger.append("step", {})
    rewrite(log.path, lambda lines: restamped(lines, 4))
    heads = [hashlib.sha256(line).hexdigest() for line in log.path.read_bytes().splitlines()]
    key = load_private(stranger.keys)

    def forge(lines: list[bytes]) -> list[bytes]:
        for count in (4, 5, 6):
            signature = key.sign(Checkpoint.content(count, heads[count - 1], NOON)).hex()
            forged = Checkpoint(count=count, head=heads[count - 1], at=NOON, signature=signature)
            lines[count] = forged.line() + b"\n"
        return lines

    rewrite(log.checkpoints_path, forge)
    assert [text for text in places(log) if "signature" in text] == [
        f"checkpoints.jsonl:{line} its signature is not of this site's key" for line in (5, 6, 7)
    ]


def test_an_export_is_checked_without_the_home(log: AuditLog, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    manifest = export_log(log, file, by="ann", since=at(log, 2), until=at(log, 5))
    assert (manifest.first, manifest.last) == (2, 4)
    (tmp_path / "home").rename(tmp_path / "gone")
    report = verify_export(file)
    assert (report.ok, report.problems) == (True, ())
    assert verify_export(file, key=manifest.key.upper()).ok
    assert "signed with another key" in verify_export(file, key="0" * 64).problems[0].what


def test_an_export_replaces_nothing_and_is_not_made_of_a_changed_log(log: AuditLog, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("mine")
    with pytest.raises(AuditError, match="is there already"):
        export_log(log, file, by="ann")
    with pytest.raises(AuditError, match="no entries in that span"):
        export_log(log, tmp_path / "none", by="ann", since=NOON + timedelta(days=9))
    rewrite(log.path, lambda lines: restamped(lines, 3))
    with pytest.raises(AuditError, match="line 3: entry 3 is not the one"):
        export_log(log, tmp_path / "other", by="ann")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.jsonl"]


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (lambda lines: [lines[0], lines[1].replace(b'"number":2', b'"number":9'), *lines[2:]], 3, "continue"),
        (lambda lines: [lines[0], *lines[2:]], 2, "number 3 where 2 belongs"),
        (lambda lines: lines[:-1], 6, "is not the manifest"),
        (lambda lines: [*lines[:-1], lines[-1][:-9]], 7, "cut"),
        (lambda lines: lines[:3] + lines[-1:], 4, "6 entries were exported, 3 are there"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"by":"ann"', b'"by":"bob"')], 7, "was edited"),
        (lambda lines: restamped(lines[:-1], 2) + lines[-1:], 6, "is not the entry that was exported last"),
    ],
)
def test_whatever_is_changed_in_an_export_is_found(
    log: AuditLog, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], line: int, what: str
) -> None:
    file = tmp_path / "out.jsonl"
    export_log(log, file, by="ann")
    rewrite(file, change)
    report = verify_export(file)
    assert not report.ok
    assert any(problem.line == line and what in problem.what for problem in report.problems), report.problems


def test_old_entries_are_exported_and_dropped_and_the_log_goes_on(log: AuditLog, tmp_path: Path) -> None:
    told = prune_log(log, before=at(log, 4), export=tmp_path / "old.jsonl", by="ann", now=lambda: NOON)
    assert told.count == 3
    assert verify_export(tmp_path / "old.jsonl").ok
    assert hashlib.sha256((tmp_path / "old.jsonl").read_bytes()).hexdigest() == told.export
    report = log.verify()
    assert (report.ok, report.entries, report.signed, report.pruned) == (True, 7, 7, 3)
    assert "entries 1 to 3 were dropped on 2026-11-23 by 'ann'" in report.notes[0]
    kept = list(log.entries())
    assert [entry.seq for entry in kept] == [4, 5, 6, 7]
    assert kept[-1].kind == "audit-pruned"
    assert log.append("step", {}).seq == 8
    assert log.verify().ok
    again = prune_log(log, before=at(log, 6), export=tmp_path / "old2.jsonl", by="bob", now=lambda: NOON)
    assert (again.count, log.verify().ok, log.verify().pruned) == (5, True, 5)
    manifest = verify_export(tmp_path / "old2.jsonl").manifest
    assert manifest is not None
    assert (manifest.first, manifest.last, manifest.previous) == (4, 5, told.head)


def test_entries_are_written_while_a_log_is_checked(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_while_others_write(files: audit_check.LogFiles, folder: Path, keys: Path) -> AuditReport:
        writer = threading.Thread(target=AuditLog(log.folder.parent).append, args=("meanwhile", {}))
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        return audit_check.check_log(files, folder, keys)

    monkeypatch.setattr(audit, "check_log", check_while_others_write)
    report = log.verify()
    assert (report.ok, report.entries) == (True, 6)
    assert [entry.kind for entry in log.entries()][-1] == "meanwhile"


def test_an_earlier_log_is_still_missed_after_the_entry_that_names_it_was_dropped(
    log: AuditLog, tmp_path: Path
) -> None:
    old = log.folder.parent / "old"
    log.folder.rename(old)
    for name in ("audit.key", "audit.pub"):
        shutil.copy(log.keys / name, old / name)
    report = audit_check.verify_log(old, old)
    named = {"folder": "earlier-1", "entries": report.entries, "head": report.head, "key": report.key}
    log.append(RESTORED, {"earlier_log": named})
    old.rename(log.folder / "earlier-1")
    for number in range(4):
        log.append("step", {"number": number})
    assert log.verify().ok
    prune_log(log, before=at(log, 3), export=tmp_path / "1.jsonl", by="ann", now=lambda: NOON)
    assert (log.verify().ok, next(log.entries()).seq) == (True, 3)
    prune_log(log, before=at(log, 5), export=tmp_path / "2.jsonl", by="ann", now=lambda: NOON)
    assert log.verify().ok
    shutil.move(log.folder / "earlier-1", tmp_path / "taken")
    assert places(log) == ["audit.jsonl:1 names the earlier log 'earlier-1', which is not there"]
    stone = json.loads((log.folder / "pruned.jsonl").read_bytes().splitlines()[-1])
    del stone["earlier_log"]
    (log.folder / "pruned.jsonl").write_bytes(rfc8785.dumps(stone) + b"\n")
    assert "its signature is not of this site's key" in places(log)[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act in the home of another user")
def test_what_root_does_in_the_home_of_an_account_is_left_to_that_account(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, STRANGER, STRANGER)
    change_users(home, lambda _: Users(users=(User(name="ann", roles=(Role.ADMIN,)),)))
    log, times = AuditLog(home), [NOON + timedelta(hours=number) for number in range(4)]
    for moment in times:
        AuditLog(home, now=standing(moment)).append("step", {})
    prune_log(log, before=times[2], export=tmp_path / "old.jsonl", by="root", now=lambda: NOON)
    made = [path for path in home.rglob("*") if path.name != "torn"]
    assert {"audit.jsonl", "checkpoints.jsonl", "pruned.jsonl", "audit.key", ".users.lock"} <= {
        path.name for path in made
    }
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(STRANGER, STRANGER)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led to give files away")
def test_root_gives_away_nothing_that_the_account_laid_a_link_to(tmp_path: Path) -> None:
    home, theirs = tmp_path / "home", tmp_path / "shadow"
    theirs.write_text("")
    (home / "audit").mkdir(parents=True)
    for path in (home, home / "audit"):
        os.chown(path, STRANGER, STRANGER)
    for link in (home / ".users.lock", home / "audit" / "audit.lock", home / "audit" / "audit.jsonl"):
        link.symlink_to(theirs)
    change_users(home, lambda _: Users(users=(User(name="ann", roles=(Role.ADMIN,)),)))
    AuditLog(home).append("step", {})
    assert (theirs.stat().st_uid, theirs.stat().st_gid) == (0, 0)


def test_what_is_cut_off_the_beginning_by_others_is_found(log: AuditLog, tmp_path: Path) -> None:
    rewrite(log.path, lambda lines: lines[2:])
    assert "audit.jsonl:1 begins with entry 3: the 2 before it were removed" in places(log)[0]


def test_more_than_was_dropped_cannot_be_taken_away(log: AuditLog, tmp_path: Path) -> None:
    prune_log(log, before=at(log, 4), export=tmp_path / "old.jsonl", by="ann", now=lambda: NOON)
    stone = (log.folder / "pruned.jsonl").read_bytes()
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[1:]))
    assert "begins with entry 5" in places(log)[0]
    head = hashlib.sha256(lines[0].rstrip(b"\n")).hexdigest()
    forged = json.loads(stone) | {"count": 4, "head": head}
    (log.folder / "pruned.jsonl").write_bytes(rfc8785.dumps(forged) + b"\n")
    assert "pruned.jsonl:1 its signature is not of this site's key" in places(log)[0]
    log.path.write_bytes(b"".join(lines))
    (log.folder / "pruned.jsonl").unlink()
    assert "begins with entry 4" in places(log)[0]


def test_an_edit_after_a_drop_is_found_at_its_line(log: AuditLog, tmp_path: Path) -> None:
    prune_log(log, before=at(log, 4), export=tmp_path / "old.jsonl", by="ann", now=lambda: NOON)
    rewrite(log.path, lambda lines: [lines[0], lines[1].replace(b'"number":5', b'"number":9'), *lines[2:]])
    assert "audit.jsonl:2 entry 5 is not the one that was signed" in "; ".join(places(log))


def test_nothing_is_dropped_that_is_not_old_or_cannot_be_kept(log: AuditLog, tmp_path: Path) -> None:
    before = log.path.read_bytes()
    with pytest.raises(AuditError, match="no signed entries before"):
        prune_log(log, before=NOON, export=tmp_path / "old.jsonl", by="ann")
    (tmp_path / "there").write_text("")
    with pytest.raises(AuditError, match="is there already"):
        prune_log(log, before=at(log, 4), export=tmp_path / "there", by="ann")
    assert log.path.read_bytes() == before


@pytest.mark.timeout(120)
def test_a_drop_that_is_killed_anywhere_leaves_a_sound_log_and_loses_nothing() -> None:
    files = frozenset({str(audit_prune.__file__)})
    times = [NOON + timedelta(hours=number) for number in range(4)]
    died = 0
    with folder_in_memory() as folder:
        for line in range(1, 300, 3):
            home = folder / str(line)
            log = AuditLog(home, now=lambda: NOON)
            for moment in times:
                AuditLog(home, now=standing(moment)).append("step", {})

            def drop(name: str) -> None:
                prune_log(log, before=times[2], export=home / name, by="ann", now=lambda: NOON)  # noqa: B023

            killed = killed_at(line, files, lambda: drop("old.jsonl"))
            assert log.verify().ok, (line, log.verify().problems)
            if next(log.entries()).seq == 1:
                drop("again.jsonl")
            else:
                assert verify_export(home / "old.jsonl").ok
            assert (log.verify().ok, log.verify().pruned) == (True, 2)
            died += killed
            if not killed:
                break
    assert died > 10


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(command.app, arguments, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_export_verify_show_and_prune(
    log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path / "home"))
    file = str(tmp_path / "out.jsonl")
    assert run("export", file)[1].startswith(f"{file}: entries 1 to 6, signed with key ")
    assert run("verify", file)[1].startswith(f"{file}: sound, entries 1 to 6")
    assert run("verify", file, "--key", "00")[0] == 1
    assert json.loads(run("verify", file, "--json")[1])["manifest"]["last"] == 6
    assert run("show", "--incident", "inc-0")[1].count("number=") == 3
    shown = json.loads(run("show", "--since", "2026-11-23T13:00", "--until", "2026-11-23T15:00", "--json")[1])
    assert [entry["at"][:13] for entry in shown] == ["2026-11-23T13", "2026-11-23T14"]
    code, _, said = run("show", "--since", "yesterday")
    assert code == 2
    assert "'yesterday' is no moment" in " ".join(said.replace("│", "").split())
    code, said, _ = run("prune", "--before", "2026-11-23T14:00", "--export", str(tmp_path / "old"))
    assert (code, "are dropped" in said) == (0, True)
    assert "exported and dropped" in run("verify")[1]
    assert run("prune", "--before", "2026-11-23T14:00", "--export", str(tmp_path / "old2"))[0] == 2
