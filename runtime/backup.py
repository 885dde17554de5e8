"""Backing up a home while incidents run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_check import verify_log
from watchkeeper.runtime.audit_keys import PRIVATE, PUBLIC
from watchkeeper.runtime.audit_records import CHECKPOINTS, LOG, PRUNED
from watchkeeper.runtime.backup_files import (
    ELSEWHERE,
    HOME,
    BackupManifest,
    copy_file,
    digest_tree,
    write_archive,
)
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.errors import AuditError, BackupError
from watchkeeper.runtime.schema import ENDED
from watchkeeper.runtime.settings import Settings

DATABASE = "watchkeeper.db"
_ENDINGS = ("", "-wal", "-shm", "-journal")
_MAGIC = b"SQLite format 3\0"
MODELS = "models"
_SUFFIX = ".tar.gz"
_STAGING = ".watchkeeper-backup-"
_APART = {MODELS, "locks", "cache", "audit", "keys"}
"""Folders of the home that are not copied as they are, or not at all."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made.

    Attributes:
        path: The archive.
        sha256: Of the archive.
        manifest: What is in it.
    """

    path: Path
    sha256: str
    manifest: BackupManifest


def back_up(
    settings: Settings,
    target: Path,
    *,
    by: str,
    version: str,
    with_key: bool = False,
    config: Path | None = None,
    now: Clock = utc_now,
) -> Backup:
    """Write one archive of a home, whole or not at all; incidents may run meanwhile.

    The database is copied first, in one consistent state, and everything else after it: so the audit log
    and the hosts' kept files hold at least what the database speaks of. Models are left out. A database on
    a server is not copied: dump that with its own tools, before this.

    Args:
        settings: Of the site.
        target: The archive, whose name ends in ``.tar.gz`` and whose folder is there, or the folder to write
            it into under a name with the time.
        by: Who makes it.
        version: Of Watchkeeper.
        with_key: Include the key that signs the audit log: who has the archive can then forge that log.
        config: The configuration file, where it lies outside of the home.
        now: The time.

    Raises:
        BackupError: If there is nothing to back up, the target is no place for an archive, the archive is
            there already, or it cannot be written.
        AuditError: If the audit log is not as it was written.
    """
    at = now()
    path = target / f"watchkeeper-{at:%Y%m%dT%H%M%SZ}{_SUFFIX}" if target.is_dir() else target
    home = settings.home
    database = settings.store_place
    if isinstance(database, Path) and not database.is_file():
        raise BackupError(
            f"home {str(home)!r} has no database {str(database)!r}: there is nothing to back up"
        )
    _check_place(path)
    if path.resolve().is_relative_to(home.resolve()):
        raise BackupError(
            f"{str(path)!r} lies in the home that is backed up, so each archive would hold all before it: "
            "name a folder outside of it, best on another disk"
        )
    if path.exists():
        raise BackupError(f"archive {str(path)!r} is there already: name another, nothing is replaced")
    try:
        with _staging(path.parent) as staging:
            root = staging / "content"
            kept = root / HOME
            kept.mkdir(parents=True, mode=0o700)
            store = _name_in(home, database)
            live = _copy_database(database, kept / store) if isinstance(database, Path) else ()
            entries, head = _copy_audit(home, kept, with_key=with_key)
            _copy_tree(home, kept, without=home / store)
            elsewhere = _copy_elsewhere(settings, config, root)
            manifest = BackupManifest(
                made_at=at,
                by=by,
                version=version,
                home=str(home.absolute()),
                database=isinstance(database, Path),
                store=store,
                with_key=with_key,
                live=live,
                audit_entries=entries,
                audit_head=head,
                elsewhere=elsewhere,
                files=digest_tree(root),
            )
            return Backup(path, write_archive(path, root, manifest, owner=home.stat()), manifest)
    except OSError as error:
        place = error.filename2 or error.filename or str(path)
        raise BackupError(
            f"archive {str(path)!r} cannot be written ({place}: {error.strerror}): nothing of it was left; "
            "make room there or name another place"
        ) from error


def _check_place(path: Path) -> None:
    """Refuse what is probably a mistake: a disk that is not mounted, or a folder that is not there.

    Raises:
        BackupError: If the folder of the archive is not there, or its name is not one of an archive.
    """
    if not path.name.endswith(_SUFFIX):
        raise BackupError(
            f"{str(path)!r} is no folder that is there, and no name of an archive, which ends in "
            f"{_SUFFIX!r}: make the folder first, or name {str(path.with_name(path.stem + _SUFFIX))!r}"
        )
    if not path.parent.is_dir():
        raise BackupError(
            f"folder {str(path.parent)!r} of archive {path.name!r} is not there: make it first, or mount its "
            "disk; no folder is made for a backup"
        )


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Make a folder that is gone at the end; what a killed backup left of its own is removed, too."""
    for old in parent.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError), _locked(old):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _copy_database(source: Path, target: Path) -> tuple[str, ...]:
    """Copy the store's database; returns the incidents that are live in it.

    Raises:
        BackupError: If it is damaged.
    """
    with _copied(source, target) as writing:
        marks = ", ".join("?" for _ in ENDED)
        query = f"SELECT id FROM incidents WHERE status NOT IN ({marks}) ORDER BY id"  # noqa: S608
        return tuple(str(row[0]) for row in writing.execute(query, ENDED))


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[sqlite3.Connection]:
    """Copy a SQLite database in one consistent state, and open the copy.

    Raises:
        BackupError: If it is damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.touch(mode=0o600)
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=30)) as reading,
            contextlib.closing(sqlite3.connect(target)) as writing,
        ):
            reading.backup(writing)
            # One file, without a log beside it.
            writing.execute("PRAGMA journal_mode=DELETE")
            sound = writing.execute("PRAGMA quick_check(1)").fetchone()[0]
            if sound != "ok":
                raise sqlite3.DatabaseError(" ".join(str(sound).split()))
            yield writing
    except sqlite3.Error as error:
        raise BackupError(
            f"database {str(source)!r} cannot be backed up ({error}): see `watchkeeper doctor`; "
            "an earlier backup is not touched"
        ) from error


def _copy_audit(home: Path, kept: Path, *, with_key: bool) -> tuple[int, str]:
    """Copy the audit log up to its last whole entry; returns the number and the hash of that."""
    log = AuditLog(home)
    with log.still():
        for path in _files(log.folder):
            name = path.relative_to(home)
            if path.name != "audit.lock":
                copy_file(path, kept / name, whole_lines=path.name in {LOG, CHECKPOINTS, PRUNED})
    for key, wanted in ((PUBLIC, True), (PRIVATE, with_key)):
        if wanted and (log.keys / key).exists():
            copy_file(log.keys / key, kept / "keys" / key)
    if with_key and not (kept / "keys" / PRIVATE).exists():
        raise BackupError(f"key {str(log.keys / PRIVATE)!r} is not there: back up without --with-key")
    report = verify_log(kept / "audit", kept / "keys")
    if not report.ok and not report.missing:  # where there is no log, the rest is worth a backup, too
        first = report.problems[0]
        raise AuditError(
            f"audit log {str(log.path)!r} is not as it was written ({first.file} line {first.line}: "
            f"{first.what}), and a backup of it could not be restored; see `watchkeeper audit verify`"
        )
    return report.entries, report.head


def _is_sqlite(path: Path) -> bool:
    """Whether a file is a database of SQLite, and none of another program."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except FileNotFoundError:
        return False


def _name_in(home: Path, database: Path | str) -> str:
    """Where a database is in a home; one from elsewhere takes the usual place."""
    if isinstance(database, Path) and database.resolve().is_relative_to(home.resolve()):
        return database.resolve().relative_to(home.resolve()).as_posix()
    return DATABASE


def _copy_tree(home: Path, kept: Path, *, without: Path) -> None:
    left_out = {without.with_name(f"{without.name}{ending}") for ending in _ENDINGS}
    for top in sorted(home.iterdir()):
        if top.name in _APART or top.name.startswith((DATABASE, _STAGING)):
            continue
        paths = [path for path in _files(top) if path not in left_out]
        databases = [path for path in paths if path.suffix == ".db" and _is_sqlite(path)]
        # Databases first: files that they speak of are there before they speak of them.
        for path in databases:
            with _copied(path, kept / path.relative_to(home)):
                pass
        beside = {f"{path}{ending}" for path in databases for ending in _ENDINGS}
        for path in paths:
            if str(path) in beside:
                continue
            # What is gone since it was seen was no longer needed.
            with contextlib.suppress(FileNotFoundError):
                copy_file(path, kept / path.relative_to(home))


def _copy_elsewhere(settings: Settings, config: Path | None, root: Path) -> dict[str, str]:
    """Copy configuration that lies outside of the home; returns where each lay, by its name here."""
    found: dict[str, str] = {}
    home = settings.home.resolve()
    named = (settings.inventory_path, settings.policy_path, settings.escalation_path, config)
    for number, path in enumerate(named, start=1):
        if path is None or not path.is_file() or path.resolve().is_relative_to(home):
            continue
        name = f"{ELSEWHERE}/{number}-{path.name}"
        copy_file(path, root / name)
        found[name] = str(path.absolute())
    return found


def _files(place: Path) -> Iterator[Path]:
    """Regular files at or below a place; links are not followed, but for one that is the place itself."""
    if place.is_file():
        if not place.name.endswith((".part", ".tmp")):
            yield place
        return
    if place.is_symlink():
        return
    for folder, folders, names in os.walk(place):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if not name.endswith((".part", ".tmp")) and path.is_file() and not path.is_symlink():
                yield path
