"""A backup is whole or not there, and nothing is replaced by one that is not what was backed up."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from tests.mounts import mounted
from watchkeeper import Settings
from watchkeeper.cli import build_app
from watchkeeper.runtime.approvals import ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.backup import Backup, back_up
from watchkeeper.runtime.errors import AuditError, BackupError, HaltedError, StoreError
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.people import current_person
from watchkeeper.runtime.restoring import restore
from watchkeeper.runtime.roles import Role
from watchkeeper.runtime.settings import load_settings
from watchkeeper.runtime.tokens import new_token
from watchkeeper.runtime.users import User, Users, change_users, load_users

STRANGER = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder with a home whose incident waits for an approval, and the lamp that it is about."""
    with folder_in_memory() as folder:
        home = folder / "home"
        with orchestrator(home, Lamp.dark(folder, switch="off"), prefers("switch")) as o:
            list(o.resume(o.open(ALERT).id, wait=False))
        (home / "hosts" / "house").mkdir(parents=True)
        (home / "hosts" / "house" / "kept.conf").write_text("good")
        (home / "models").mkdir()
        (home / "models" / "weights").write_text("large")
        (home / "inventory.yaml").write_text("hosts: [{name: house}]\n")
        yield folder


@pytest.fixture
def home(folder: Path, made: Path) -> Path:
    """A copy of that home."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder / "home"


def save(home: Path, target: Path, *, with_key: bool = False, **settings: Path) -> Backup:
    return back_up(
        Settings(home=home, **settings),  # type: ignore[arg-type]
        target,
        by="ann",
        version="0",
        with_key=with_key,
    )


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return set(tar.getnames())


def test_an_archive_holds_what_is_needed_and_neither_models_nor_the_key(home: Path, folder: Path) -> None:
    (folder / "out").mkdir()
    made = save(home, folder / "out")
    held = names(made.path)
    assert made.path.parent == folder / "out"
    assert {"home/watchkeeper.db", "home/audit/audit.jsonl", "home/keys/audit.pub"} <= held
    assert {"home/hosts/house/kept.conf", "home/inventory.yaml"} <= held
    assert not any("models" in name or "audit.key" in name or "lock" in name for name in held)
    assert made.path.stat().st_mode & 0o077 == 0
    assert [path.name for path in (folder / "out").iterdir()] == [made.path.name]
    assert "home/keys/audit.key" in names(save(home, folder / "with.tar.gz", with_key=True).path)


def test_it_is_restored_with_everything_and_the_log_goes_on_where_the_key_is(
    home: Path, folder: Path
) -> None:
    made = save(home, folder / "one.tar.gz", with_key=True)
    new = folder / "new" / "home"
    done = restore(made.path, new, by="bob")
    assert (done.home, done.aside, done.new_key) == (new, None, False)
    assert (new / "hosts" / "house" / "kept.conf").read_text() == "good"
    entries = list(AuditLog(new).entries())
    assert ([entry.kind for entry in entries[-2:]], AuditLog(new).verify().ok) == (
        ["home-restored", "halted"],
        True,
    )
    told = entries[-2].data
    assert isinstance(told, dict)
    assert told["archive_sha256"] == made.sha256
    with Journal(new) as journal:
        (asked,) = journal.approvals.list()
        assert asked.status is ApprovalStatus.EXPIRED
        assert told["approvals_expired"] == [asked.id]


def test_without_the_key_the_log_is_closed_and_still_guarded(home: Path, folder: Path) -> None:
    made = save(home, folder / "one.tar.gz")
    new = folder / "new" / "home"
    assert restore(made.path, new, by="bob").new_key
    log = AuditLog(new)
    assert (log.verify().ok, log.verify().entries) == (True, 2)
    old = new / "audit" / "earlier-1"
    lines = (old / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (old / "audit.jsonl").write_bytes(b"".join([lines[0].replace(b"dark", b"dim!"), *lines[1:]]))
    assert log.verify().problems[0].file == "earlier-1/audit.jsonl"
    (old / "audit.jsonl").write_bytes(b"".join(lines))
    old.rename(new / "elsewhere")
    assert "names the earlier log 'earlier-1', which is not there" in log.verify().problems[0].what


def test_a_key_that_is_kept_elsewhere_goes_on_with_the_log(home: Path, folder: Path) -> None:
    made = save(home, folder / "one.tar.gz")
    key = home / "keys" / "audit.key"
    assert not restore(made.path, folder / "new", by="bob", key=key).new_key
    stranger = AuditLog(folder / "stranger")
    stranger.append("x", {})
    with pytest.raises(BackupError, match="is not the one that signed"):
        restore(made.path, folder / "other", by="bob", key=folder / "stranger" / "keys" / "audit.key")
    assert not (folder / "other").exists()


def test_a_home_that_is_there_is_replaced_only_if_that_is_said_and_kept_aside(
    home: Path, folder: Path
) -> None:
    made = save(home, folder / "one.tar.gz")
    with pytest.raises(BackupError, match="is not empty"):
        restore(made.path, home, by="bob")
    (home / "later").write_text("")
    done = restore(made.path, home, by="bob", replace=True)
    assert done.aside is not None
    assert not done.new_key
    assert (done.aside / "later").exists()
    assert not (home / "later").exists()
    assert (home / "models" / "weights").read_text() == "large"
    assert AuditLog(home).verify().ok
    assert AuditLog(done.aside).verify().ok


def test_a_restored_home_is_stopped_and_tells_of_a_stop_that_came_after_the_backup(
    home: Path, folder: Path
) -> None:
    made = save(home, folder / "one.tar.gz", with_key=True)
    with Journal(home) as journal:
        journal.halts.stop(by="carol", reason="smoke")
    done = restore(made.path, home, by="bob", replace=True)
    with Journal(home) as journal:
        assert journal.halts.current() == done.stopped
        assert [entry.kind for entry in journal.audit.entries()][-2:] == ["home-restored", "halted"]
    assert done.stopped.by == "bob"
    assert done.stopped.reason.startswith("restored from a backup of ")
    assert done.stopped.reason.endswith("; the home before it was stopped by 'carol': smoke")
    fresh = restore(made.path, folder / "new", by="bob").stopped
    assert "stopped" not in fresh.reason
    with Journal(folder / "new") as journal, pytest.raises(HaltedError, match="restored from a backup"):
        journal.halts.check()


def test_a_home_that_was_stopped_when_it_was_backed_up_stays_so(home: Path, folder: Path) -> None:
    with Journal(home) as journal:
        halt = journal.halts.stop(by="carol", reason="smoke")
    made = save(home, folder / "one.tar.gz", with_key=True)
    (home / "watchkeeper.db").write_bytes(b"damaged since")
    assert restore(made.path, home, by="bob", replace=True).stopped == halt


def test_users_that_were_removed_since_do_not_come_back(home: Path, folder: Path) -> None:
    secret, kept = new_token(datetime.now(UTC))
    mallory = User(name="mallory", roles=(Role.ADMIN,), tokens=(kept,))
    carol = User(name="carol", roles=(Role.ADMIN,), accounts=("carol",))
    change_users(home, lambda _: Users(users=(mallory, carol)))
    made = save(home, folder / "one.tar.gz", with_key=True)
    change_users(home, lambda _: Users(users=(carol,)))
    assert restore(made.path, home, by="carol", replace=True).users_back == {}
    users = load_users(home)
    assert users is not None
    assert (users.users, users.of_token(secret)) == ((carol,), None)
    # Where there was no home, there are no other users than those of the backup: that is said.
    done = restore(made.path, folder / "new", by="carol")
    assert done.users_back == {"mallory": (kept.id,), "carol": ()}
    entry = [entry for entry in AuditLog(folder / "new").entries() if entry.kind == "home-restored"][-1]
    assert entry.data["users_back"] == {"mallory": [kept.id], "carol": []}  # type: ignore[index,call-overload]
    assert load_users(folder / "new") == Users(users=(mallory, carol))


def test_a_home_whose_incident_runs_is_not_replaced(home: Path, folder: Path) -> None:
    made = save(home, folder / "one.tar.gz")
    with Journal(home) as journal:
        (incident,) = journal.incidents.list()
        with journal.incidents.lock(incident.id), pytest.raises(BackupError, match="runs incident"):
            restore(made.path, home, by="bob", replace=True)
    assert (home / "models").exists()


def repack(archive: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """Write an archive again with other members."""
    with tarfile.open(archive) as tar:
        held = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in held:
            changed = change(name, content)
            if changed is not None:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                tar.addfile(info, io.BytesIO(changed[1]))


def edited(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content.replace(b"good", b"evil")


def dropped(name: str, content: bytes) -> tuple[str, bytes] | None:
    return None if name.endswith("kept.conf") else (name, content)


def outside(name: str, content: bytes) -> tuple[str, bytes]:
    if name == "manifest.json":
        values = json.loads(content)
        values["files"]["../escaped"] = values["files"].pop("home/hosts/house/kept.conf")
        return name, json.dumps(values).encode()
    return name.replace("home/hosts/house/kept.conf", "../escaped"), content


def unlisted(name: str, content: bytes) -> tuple[str, bytes]:
    return name.replace("kept.conf", "other.conf"), content


def newer(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content.replace(b'"format": 1', b'"format": 9') if name == "manifest.json" else content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edited, "is not what was backed up"),
        (dropped, "kept.conf' is missing"),
        (outside, "which no backup holds"),
        (unlisted, "does not list"),
        (newer, "has format 9"),
    ],
)
def test_an_archive_that_was_changed_replaces_nothing(
    home: Path,
    folder: Path,
    change: Callable[[str, bytes], tuple[str, bytes] | None],
    said: str,
) -> None:
    made = save(home, folder / "one.tar.gz")
    repack(made.path, change)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(BackupError, match=said):
        restore(made.path, home, by="bob", replace=True)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("left", [0, 100, 0.5, 0.99])
def test_an_archive_that_was_cut_off_replaces_nothing(home: Path, folder: Path, left: float) -> None:
    made = save(home, folder / "one.tar.gz")
    content = made.path.read_bytes()
    made.path.write_bytes(content[: int(left if left >= 1 else left * len(content))])
    with pytest.raises(BackupError, match=r"damaged or cut off|cannot be unpacked|cut off|no backup"):
        restore(made.path, folder / "new", by="bob")
    assert not (folder / "new").exists()


def test_what_is_damaged_is_not_backed_up(home: Path, folder: Path) -> None:
    log = home / "audit" / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"dark", b"dim!", 1))
    with pytest.raises(AuditError, match="is not as it was written"):
        save(home, folder / "one.tar.gz")
    log.write_bytes(whole)
    (home / "watchkeeper.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(BackupError, match="cannot be backed up"):
        save(home, folder / "one.tar.gz")
    assert not list(folder.glob("*.tar.gz"))
    assert not list(folder.glob(".watchkeeper-*"))
    with pytest.raises(BackupError, match="nothing to back up"):
        save(folder / "nowhere", folder / "one.tar.gz")


def test_a_database_of_a_newer_release_is_not_restored(home: Path, folder: Path) -> None:
    with sqlite3.connect(home / "watchkeeper.db") as connection:
        connection.execute("UPDATE watchkeeper_meta SET value = '999' WHERE name = 'schema'")
    connection.close()
    made = save(home, folder / "one.tar.gz")
    with pytest.raises(StoreError):
        restore(made.path, folder / "new", by="bob")
    assert not (folder / "new").exists()


def test_other_databases_are_copied_whole_while_somebody_writes_them(home: Path, folder: Path) -> None:
    (home / "predictors").mkdir()
    place = home / "predictors" / "predictions.db"
    writing = sqlite3.connect(place, isolation_level=None)
    writing.execute("PRAGMA journal_mode=WAL")
    writing.execute("CREATE TABLE answers (id TEXT)")
    writing.execute("INSERT INTO answers VALUES ('in the log beside it')")
    archive = save(home, folder / "out.tar.gz").path
    writing.close()
    kept = {name for name in names(archive) if "predictors/" in name}
    assert {name.rpartition("/")[2] for name in kept} == {"predictions.db"}
    restore(archive, folder / "other", by="ann")
    with contextlib.closing(sqlite3.connect(folder / "other" / "predictors" / "predictions.db")) as reading:
        assert reading.execute("SELECT id FROM answers").fetchall() == [("in the log beside it",)]


def test_a_file_that_is_only_called_like_a_database_is_copied_as_it_is(home: Path, folder: Path) -> None:
    (home / "pictures.db").write_bytes(b"of another program")
    made = save(home, folder / "out.tar.gz")
    restore(made.path, folder / "other", by="bob")
    assert (folder / "other" / "pictures.db").read_bytes() == b"of another program"


def test_configuration_from_elsewhere_comes_along(home: Path, folder: Path) -> None:
    outside = folder / "etc" / "policy.yaml"
    outside.parent.mkdir()
    outside.write_text(ALLOW)
    made = save(home, folder / "one.tar.gz", policy=outside)
    done = restore(made.path, folder / "new", by="bob")
    assert Path(done.elsewhere[str(outside)]).read_text() == ALLOW


def test_a_database_of_another_name_is_made_safe_where_the_configuration_looks(
    home: Path, folder: Path
) -> None:
    (home / "watchkeeper.db").rename(home / "state.db")
    (home / "config.yaml").write_text("store: state.db\n")
    made = back_up(load_settings(home=home), folder / "one.tar.gz", by="ann", version="0")
    assert not any(name.endswith("watchkeeper.db") for name in names(made.path))
    new = folder / "new"
    restore(made.path, new, by="bob")
    settings = load_settings(home=new)
    assert settings.store_place == new / "state.db"
    with Journal(new, store=settings.store_place) as journal, pytest.raises(HaltedError):
        journal.halts.check()
    with Journal(new, store=settings.store_place) as journal:
        assert [asked.status for asked in journal.approvals.list()] == [ApprovalStatus.EXPIRED]


def test_files_that_are_called_like_the_database_come_along(home: Path, folder: Path) -> None:
    (home / "watchkeeper.db").rename(home / "state")
    (home / "config.yaml").write_text("store: state\n")
    (home / "state-of-things.txt").write_text("well")
    made = back_up(load_settings(home=home), folder / "one.tar.gz", by="ann", version="0")
    restore(made.path, folder / "new", by="bob")
    assert (folder / "new" / "state-of-things.txt").read_text() == "well"


def test_a_database_that_the_configuration_has_elsewhere_is_told(home: Path, folder: Path) -> None:
    outside = folder / "data" / "live.db"
    outside.parent.mkdir()
    (home / "watchkeeper.db").rename(outside)
    (home / "config.yaml").write_text(f"store: {outside}\n")
    made = back_up(load_settings(home=home), folder / "one.tar.gz", by="ann", version="0")
    done = restore(made.path, folder / "new", by="bob")
    assert done.other_store == str(outside)
    (folder / "new" / "config.yaml").unlink()
    with Journal(folder / "new") as journal, pytest.raises(HaltedError):
        journal.halts.check()


def test_a_home_whose_database_has_another_name_is_not_replaced_while_it_is_open(
    home: Path, folder: Path
) -> None:
    made = save(home, folder / "one.tar.gz", with_key=True)
    (home / "watchkeeper.db").rename(home / "state.db")
    (home / "config.yaml").write_text("store: state.db\n")
    with Journal(home, store=home / "state.db") as journal:
        journal.incidents.list()
        with pytest.raises(BackupError, match="has its database open"):
            restore(made.path, home, by="bob", replace=True)


def test_run_files_name_all_files_of_the_new_home(home: Path, folder: Path) -> None:
    (home / "runs").mkdir(exist_ok=True)
    named = {name: str(home / f"{name}.yaml") for name in ("inventory", "policy", "escalation")}
    (home / "runs" / "INC-0000.json").write_text(json.dumps(named))
    made = save(home, folder / "one.tar.gz")
    new = folder / "new"
    restore(made.path, new, by="bob")
    found = json.loads((new / "runs" / "INC-0000.json").read_text())
    assert found == {name: str(new / f"{name}.yaml") for name in named}


def test_a_database_on_a_server_is_dumped_apart_and_made_safe_where_it_is(home: Path, folder: Path) -> None:
    settings = Settings(home=home, store=SecretStr("postgresql://ann:secret@db.example/wk"))
    made = back_up(settings, folder / "one.tar.gz", by="ann", version="0", with_key=True)
    assert (made.manifest.database, "home/watchkeeper.db" in names(made.path)) == (False, False)
    assert b"secret" not in made.manifest.model_dump_json().encode()
    with pytest.raises(BackupError, match="restore that first with its own tools"):
        restore(made.path, folder / "new", by="bob")
    assert not (folder / "new").exists()
    shutil.copy(home / "watchkeeper.db", folder / "server.db")
    done = restore(made.path, folder / "new", by="bob", store=f"sqlite:///{folder / 'server.db'}")
    assert len(done.safe.expired) == 1
    assert AuditLog(folder / "new").verify().ok
    whole = save(home, folder / "whole.tar.gz")
    with pytest.raises(BackupError, match="leave out --store"):
        restore(whole.path, folder / "other", by="bob", store="postgresql://db.example/wk")


def test_a_yes_that_was_not_used_and_a_step_that_needed_none_are_not_trusted(folder: Path) -> None:
    lamp = Lamp.dark(folder, switch="off")
    home = folder / "home"
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW) as o:
        for event in o.resume(o.open(ALERT).id):
            if event.kind == "policy-decided":
                break
    made = save(home, folder / "one.tar.gz", with_key=True)
    done = restore(made.path, folder / "new", by="bob")
    with Journal(folder / "new") as journal:
        (incident,) = journal.incidents.list()
        (step,) = journal.steps.list(incident.id)
        (effect,) = journal.ledger.list(incident.id)
        assert done.safe.in_doubt == (step.id,)
        assert effect.state is EffectState.INTENDED
        assert journal.steps.next_id(incident.id) == f"{incident.id}-S1002"
    # The original goes on and does it; the restored one finds that out, and does not do it again.
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW) as o:
        list(o.resume(incident.id))
    with orchestrator(folder / "new", lamp, prefers("switch"), rules=ALLOW) as o:
        o.journal.halts.lift(by="bob")
        list(o.resume(incident.id))
        assert o.report(incident.id).outcome == "resolved"
    assert lamp.changes()[step.id] == 1


def test_the_commands(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    app = build_app()
    ann = User(name="ann", roles=(Role.ADMIN,), accounts=(current_person(),))
    change_users(home, lambda _: Users(users=(ann,)))
    made = CliRunner().invoke(app, ["backup", str(folder / "one.tar.gz"), "--json"], catch_exceptions=False)
    told = json.loads(made.stdout)
    assert told["live_incidents"]
    again = CliRunner().invoke(app, ["backup", str(folder / "one.tar.gz")], catch_exceptions=False)
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    refused = CliRunner().invoke(app, ["restore", told["archive"]], catch_exceptions=False)
    assert (refused.exit_code, "is not empty" in refused.stderr) == (2, True)
    done = CliRunner().invoke(app, ["restore", told["archive"], "--home", str(folder / "new")])
    assert f"run --resume {told['live_incidents'][0]}" in done.stdout
    assert "watchkeeper stop --lift" in done.stdout
    assert "ann is a user as when the backup was made (tokens: 0)" in done.stdout


def test_a_place_that_is_probably_a_mistake_is_refused_and_nothing_is_made(home: Path, folder: Path) -> None:
    before = sorted(folder.iterdir())
    missing = folder / "mnt" / "backups"
    with pytest.raises(
        BackupError, match=r"folder .*/mnt/backups' of archive 'a.tar.gz' is not there: make it"
    ):
        save(home, missing / "a.tar.gz")
    with pytest.raises(
        BackupError, match=r"/backups' is no folder that is there.*ends in '.tar.gz'.*'.*/backups.tar.gz'"
    ):
        save(home, folder / "backups")
    with pytest.raises(BackupError, match=r"or name '.*/a.tar.gz'"):
        save(home, folder / "a.zip")
    assert sorted(folder.iterdir()) == before
    (folder / "backups").mkdir()
    assert save(home, folder / "backups").path.parent == folder / "backups"


def test_a_place_inside_the_home_is_refused(home: Path) -> None:
    (home / "backups").mkdir()
    before = sorted(home.rglob("*"))
    for place in (home / "backups", home / "backups" / ".." / "a.tar.gz"):
        with pytest.raises(BackupError, match=r"lies in the home that is backed up.*name a folder outside"):
            save(home, place)
    assert sorted(home.rglob("*")) == before


def test_models_that_cannot_be_moved_stay_where_they_are_and_that_is_told(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = save(home, folder / "one.tar.gz", with_key=True)
    shutil.rmtree(home / "models")
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    with ExitStack() as stack:
        (stack.enter_context(mounted(home / "models")) / "weights").write_text("large")
        done = CliRunner().invoke(
            build_app(), ["restore", str(made.path), "--replace"], catch_exceptions=False
        )
        (aside,) = folder.glob("home.replaced-*")
        stack.callback(subprocess.run, ["umount", "-l", str(aside / "models")], check=True)
        assert done.exit_code == 0
        assert "its models could not be moved and lie there, too" in done.stdout
        assert (aside / "models" / "weights").read_text() == "large"
    assert AuditLog(home).verify().ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root restores the home of another account")
@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("with_key", [True, False])
def test_what_root_restores_is_the_accounts_all_of_it(
    home: Path, folder: Path, replaced: bool, with_key: bool
) -> None:
    for path in (home, *home.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    made = save(home, folder / "one.tar.gz", with_key=with_key)
    if not replaced:
        shutil.rmtree(home)
    restore(made.path, home, by="root", replace=replaced)
    owners = {(path.stat().st_uid, path.name) for path in (home, *home.rglob("*"))}
    assert {name for owner, name in owners if owner != STRANGER} == set()
    assert {"audit", "keys", "audit.jsonl", "watchkeeper.db"} <= {name for _, name in owners}


def test_an_archive_that_is_missing_is_said_to_be(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(
        BackupError, match=r"archive '.*/none.tar.gz' is not there: name a file that `watchkeeper"
    ):
        restore(folder / "none.tar.gz", folder / "deep" / "home", by="bob")
    with pytest.raises(BackupError, match=r"cannot be read .Is a directory."):
        restore(folder, folder / "deep" / "home", by="bob")
    assert sorted(folder.iterdir()) == before
