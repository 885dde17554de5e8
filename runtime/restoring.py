"""Restoring a home from a backup: everything is checked before anything is replaced."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_check import verify_log
from watchkeeper.runtime.audit_keys import PRIVATE, PUBLIC, fingerprint, load_private, load_public
from watchkeeper.runtime.audit_records import RESTORED
from watchkeeper.runtime.backup import DATABASE, MODELS
from watchkeeper.runtime.backup_files import (
    ELSEWHERE,
    HOME,
    BackupManifest,
    copy_file,
    digest_of,
    read_archive,
)
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.errors import AuditError, BackupError, ConfigurationError, IdentityError
from watchkeeper.runtime.halt import Halt, Halts
from watchkeeper.runtime.restoring_records import MadeSafe, make_safe
from watchkeeper.runtime.settings import load_settings
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.users import FILE as USERS
from watchkeeper.runtime.users import load_users

EARLIER_LOG = "earlier-1"
FROM_ELSEWHERE = "restored-configuration"


class Restored(BaseModel):
    """What was restored.

    Attributes:
        home: Where to.
        aside: Where the home that was there lies now.
        made_at: When the backup was made.
        stopped: The halt that holds in it until it is lifted.
        users_back: Users as they were when the backup was made, also those removed since: ids of their
            tokens, by name. Empty where those of the replaced home stay.
        safe: What was live in it, and what became of that.
        new_key: Whether a new audit log was begun, since nobody has the key of the restored one.
        elsewhere: Configuration from outside the home: where it lies now, by where it lay.
        other_store: The database that its configuration names, where that is not the restored one: it was
            neither restored nor made safe.
        archive_sha256: SHA-256 of the archive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    aside: Path | None
    made_at: datetime
    stopped: Halt
    users_back: dict[str, tuple[str, ...]]
    safe: MadeSafe
    new_key: bool
    elsewhere: dict[str, str]
    other_store: str = ""
    archive_sha256: str


def restore(
    archive: Path,
    home: Path,
    *,
    by: str,
    replace: bool = False,
    key: Path | None = None,
    store: str | None = None,
    now: Clock = utc_now,
) -> Restored:
    """Restore a backup into a home.

    What happened after the backup was made cannot be known from it. So every question that waited and
    every yes that was not used is expired, and a step that the policy allowed by itself counts as begun:
    its action's probe, or a person, says whether it was done. Calls to people are held until somebody
    releases them. Everything may have been stopped since, so the restored home is; and users may have been
    removed since, so those of a home that is replaced stay.

    Args:
        archive: The backup.
        home: Where to.
        by: Who asks for it.
        replace: Move a home that is there aside; its models move over.
        key: The key that signs the audit log, where the archive does not hold it. Without one, that of the
            replaced home is used if it fits; else the restored log is closed and a new one begun.
        store: The database on a server, restored before with its own tools, where the archive has none.
        now: The time.

    Raises:
        BackupError: If the archive is missing or damaged, the home is in use, or there and not to be
            replaced.
        StoreError: If its database is damaged or of a newer Watchkeeper.
        AuditError: If its audit log is not as it was written.
    """
    home = home.absolute()
    _check_readable(archive)
    _refuse_occupied(home, replace=replace)
    try:
        home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staging = Path(tempfile.mkdtemp(prefix=".watchkeeper-restore-", dir=home.parent))
    except OSError as error:
        raise BackupError(f"folder {str(home.parent)!r} cannot be written: {error.strerror}") from error
    try:
        manifest = read_archive(archive, staging)
        owner = (home if home.exists() else staging / next(iter(manifest.files), "")).stat()
        new = staging / HOME
        sha256 = digest_of(archive)
        _check_audit(new, manifest)
        moved = _move_elsewhere(staging, home, manifest)
        _mend_runs(new, home, manifest)
        new_key = not _find_key(new, home, key)
        earlier = _close_log(new) if new_key else None
        users_back = _users_back(new, home)
        told: dict[str, JsonValue] = {
            "by": by,
            "archive_sha256": sha256,
            "backup_made_at": manifest.made_at.isoformat(),
            "backup_home": manifest.home,
            "home": str(home),
            "users_back": {name: list(tokens) for name, tokens in users_back.items()},
        }
        if earlier:
            told["earlier_log"] = earlier
        why = f"restored from a backup of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC{_stopped_before(home)}"
        safe, stopped = _make_safe(_database(new, manifest, store), AuditLog(new, now=now), told, why, now())
        with _unused(home):
            _leave(new, owner)
            aside = _swap(new, home, now())
    except OSError as error:
        place = error.filename or str(staging)
        raise BackupError(
            f"backup {str(archive)!r} cannot be restored ({place}: {error.strerror}): nothing was replaced"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Restored(
        home=home,
        aside=aside,
        made_at=manifest.made_at,
        stopped=stopped,
        users_back=users_back,
        safe=safe,
        new_key=new_key,
        elsewhere=moved,
        other_store=_other_store(home, manifest),
        archive_sha256=sha256,
    )


def _database_of(home: Path) -> Path:
    """The database that lies in a home: the one that its configuration names, if that does."""
    with contextlib.suppress(ConfigurationError):
        place = load_settings(home=home).store_place
        if isinstance(place, Path) and place.is_relative_to(home):
            return place
    return home / DATABASE


def _other_store(home: Path, manifest: BackupManifest) -> str:
    """The database that is used from now on, where that is not the restored one; empty where it is."""
    try:
        place = load_settings(home=home).store_place
    except ConfigurationError:
        return ""  # nothing is opened with it; whoever begins anything is told of it
    if not manifest.database or place == home / manifest.store:
        return ""
    return str(place) if isinstance(place, Path) else "one on a server"


def _check_readable(archive: Path) -> None:
    try:
        archive.open("rb").close()
    except OSError as error:
        what = (
            "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        )
        raise BackupError(
            f"archive {str(archive)!r} {what}: name a file that `watchkeeper backup` wrote"
        ) from error


def _refuse_occupied(home: Path, *, replace: bool) -> None:
    with _unused(home):
        if not replace and home.exists() and any(path.name != MODELS for path in home.iterdir()):
            raise BackupError(
                f"home {str(home)!r} is not empty: name another with --home, or move it aside with --replace"
            )


@contextmanager
def _unused(home: Path) -> Iterator[None]:
    """Keep others out of a home meanwhile.

    Raises:
        BackupError: If a process runs an incident in it, or has its database open.
    """
    with ExitStack() as stack:
        for lock in sorted((home / "locks").glob("*.lock")):
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise BackupError(
                    f"home {str(home)!r} is in use: process {holder} runs incident {lock.stem!r}; "
                    "stop it first, or restore to another home with --home"
                ) from error
        database = _database_of(home)
        if database.is_file():
            connection = sqlite3.connect(database, timeout=0, isolation_level=None)
            stack.callback(connection.close)
            try:
                # Only who has a database alone may take it out of this mode.
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                    raise BackupError(
                        f"home {str(home)!r} is in use: another process has its database open; "
                        "stop it first, or restore to another home with --home"
                    ) from error
            except sqlite3.DatabaseError:
                pass  # a damaged one is what backups are for
        yield


def _check_audit(new: Path, manifest: BackupManifest) -> None:
    report = verify_log(new / "audit", new / "keys")
    if not report.ok and not (report.missing and not manifest.audit_entries):
        first = report.problems[0]
        raise AuditError(
            f"the audit log of the backup is not as it was written ({first.file} line {first.line}: "
            f"{first.what}): nothing was replaced"
        )
    if (report.entries, report.head) != (manifest.audit_entries, manifest.audit_head):
        raise AuditError(
            "the audit log of the backup is not the one that was backed up: nothing was replaced"
        )


def _find_key(new: Path, home: Path, key: Path | None) -> bool:
    """Put the key that signs the restored log in its place; whether there is one.

    Raises:
        BackupError: If the given key is not the log's.
    """
    keys = new / "keys"
    if not (keys / PUBLIC).exists() or (keys / PRIVATE).exists():
        return True  # no log was begun, or the archive holds the key
    wanted = fingerprint(load_public(keys))
    for place in (key, home / "keys" / PRIVATE):
        if place is None or not place.is_file():
            if place is not None and place == key:
                raise BackupError(
                    f"key {str(key)!r} cannot be read: name the file {PRIVATE!r} of the old home"
                )
            continue
        target = keys / PRIVATE
        target.touch(mode=0o600)
        target.write_bytes(place.read_bytes())
        with contextlib.suppress(AuditError):
            if fingerprint(load_private(keys).public_key()) == wanted:
                return True
        target.unlink()
        if place == key:
            raise BackupError(f"key {str(key)!r} is not the one that signed the audit log of the backup")
    return False


def _close_log(new: Path) -> dict[str, JsonValue]:
    """Put a log that nobody can sign any more aside; the next one names it in its first entry."""
    report = verify_log(new / "audit", new / "keys")
    old = new / "audit-closed"
    (new / "audit").rename(old)
    (new / "keys" / PUBLIC).rename(old / PUBLIC)
    (new / "audit").mkdir(mode=0o700)
    old.rename(new / "audit" / EARLIER_LOG)
    return {"folder": EARLIER_LOG, "entries": report.entries, "head": report.head, "key": report.key}


def _database(new: Path, manifest: BackupManifest, store: str | None) -> Path | str:
    """The database whose live work is made safe."""
    if manifest.database:
        if store is not None:
            raise BackupError("the archive holds its database: leave out --store")
        return new / manifest.store
    if store is None:
        raise BackupError(
            "the archive holds no database, which is on a server: restore that first with its own tools "
            "(pg_restore, psql), and name it with --store"
        )
    return store


def _make_safe(
    place: Path | str, log: AuditLog, told: dict[str, JsonValue], why: str, at: datetime
) -> tuple[MadeSafe, Halt]:
    """Make live work safe, write the restore into the audit log, and stop everything: all or nothing."""
    with Store(place) as store:
        store.check()
        with store.transaction():
            safe = make_safe(store, at)
            found: dict[str, JsonValue] = {
                "incidents": list(safe.live),
                "approvals_expired": list(safe.expired),
                "in_doubt": list(safe.in_doubt),
                "calls_held": list(safe.calls.held),
                "calls_ended": list(safe.calls.ended),
            }
            log.append(RESTORED, told | found)
            return safe, Halts(store, log, now=lambda: at).stop(by=str(told["by"]), reason=why)


def _stopped_before(home: Path) -> str:
    """Say who stopped the home that is replaced, and why; empty if nobody did, or it cannot be read."""
    with contextlib.suppress(sqlite3.Error):
        # Read as it is: opening it as a store would bring it to this release.
        with contextlib.closing(
            sqlite3.connect(f"{_database_of(home).as_uri()}?mode=ro", uri=True)
        ) as reading:
            found = reading.execute("SELECT by, reason FROM halts WHERE lifted_at IS NULL").fetchone()
        if found is not None:
            return f"; the home before it was stopped by {found[0]!r}" + (f": {found[1]}" if found[1] else "")
    return ""


def _users_back(new: Path, home: Path) -> dict[str, tuple[str, ...]]:
    """The users of the backup, by whom the restored home goes where no other users are kept."""
    if (home / USERS).exists():
        return {}
    with contextlib.suppress(IdentityError):  # such a file lets nobody do anything
        users = load_users(new)
        return {user.name: tuple(t.id for t in user.tokens) for user in users.users} if users else {}
    return {}


def _move_elsewhere(staging: Path, home: Path, manifest: BackupManifest) -> dict[str, str]:
    if not manifest.elsewhere:
        return {}
    (staging / ELSEWHERE).rename(staging / HOME / FROM_ELSEWHERE)
    return {lay: str(home / FROM_ELSEWHERE / Path(name).name) for name, lay in manifest.elsewhere.items()}


def _mend_runs(new: Path, home: Path, manifest: BackupManifest) -> None:
    """Let run files name the files of the new home where they named those of the old one."""
    for path in sorted((new / "runs").glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        for name in ("inventory", "policy", "escalation"):
            place = values.get(name) if isinstance(values, dict) else None
            if isinstance(place, str) and Path(place).is_relative_to(manifest.home):
                values[name] = str(home / Path(place).relative_to(manifest.home))
        path.write_text(json.dumps(values, indent=2), encoding="utf-8")


def _swap(new: Path, home: Path, at: datetime) -> Path | None:
    """Put the new home in the place of the old one; returns where that is now, if it held anything."""
    aside = None
    if home.exists():
        aside = home.with_name(f"{home.name}.replaced-{at:%Y%m%dT%H%M%SZ}")
        if aside.exists():
            raise BackupError(f"{str(aside)!r} is there already: try again in a second")
        _keep_users(home, new)
        home.rename(aside)
    try:
        new.rename(home)
    except OSError:
        if aside is not None:
            aside.rename(home)
        raise
    if aside is None:
        return None
    if (aside / MODELS).exists():
        # Models that cannot be moved (a mount point, another account's) stay in the folder that is told.
        with contextlib.suppress(OSError):
            (aside / MODELS).rename(home / MODELS)
    with contextlib.suppress(OSError):
        aside.rmdir()
    return aside if aside.exists() else None


def _leave(new: Path, owner: os.stat_result) -> None:
    """Give all of a home that root restores to the account whose home it is."""
    if os.geteuid() == 0:
        for path in (*new.rglob("*"), new):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _keep_users(home: Path, new: Path) -> None:
    """Let the users of the home that is replaced stay, with their owner and permissions."""
    kept = home / USERS
    if not kept.exists():
        return
    (new / USERS).unlink(missing_ok=True)
    copy_file(kept, new / USERS)
    if os.geteuid() == 0:
        found = kept.stat()
        os.chown(new / USERS, found.st_uid, found.st_gid)
