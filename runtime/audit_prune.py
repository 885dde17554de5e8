"""Dropping old entries of the audit log: exported first, and told in a way that only the site's key can."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from watchkeeper.runtime.audit import AuditLog, append_line, sync_folder, unwritable
from watchkeeper.runtime.audit_check import earlier_log
from watchkeeper.runtime.audit_export import sound_files, verify_export, whole, whole_lines, write_export
from watchkeeper.runtime.audit_keys import load_private
from watchkeeper.runtime.audit_records import PRUNED, AuditEntry, Checkpoint, Tombstone
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.errors import AuditError
from watchkeeper.tools.durable import leave_to_owner


def prune_log(log: AuditLog, *, before: datetime, export: Path, by: str, now: Clock = utc_now) -> Tombstone:
    """Export the entries before a moment, and drop them up to the last that a checkpoint signs.

    The log stays verifiable: a signed statement says which entry the first one that is left continues, and
    an entry of the log says so, too. A crash at any point leaves a log that verifies, with or without the
    old entries; doing it again (with another file) drops them.

    Args:
        log: The log.
        before: Entries at or after this moment stay.
        export: The file for what is dropped; it must not be there.
        by: Who asks for it.
        now: The time.

    Raises:
        AuditError: If the log is not sound, nothing is old enough, or a file cannot be written.
    """
    # What takes long is done while others write: they only add lines at the end.
    files = sound_files(log)
    checkpoints = [Checkpoint.model_validate_json(line) for line in whole(files.checkpoints)]
    old = _droppable(whole(files.log), checkpoints, before)
    if not old:
        raise AuditError(
            f"audit log {str(log.path)!r} has no signed entries before {before:%Y-%m-%d %H:%M:%S} UTC: "
            "nothing was dropped"
        )
    manifest = write_export(log, export, old, by=by, now=now)
    if not verify_export(export, key=manifest.key).ok:
        raise AuditError(
            f"export {str(export)!r} is not what was written: nothing was dropped; check that disk"
        )
    tombstone = Tombstone(
        count=manifest.last,
        head=manifest.head,
        at=now(),
        by=by,
        export=hashlib.sha256(export.read_bytes()).hexdigest(),
        earlier_log=earlier_log(files),
    )
    log.append("audit-pruned", tombstone.model_dump(mode="json", exclude={"signature"}))
    with log.held():
        key = load_private(log.keys)
        left = _left(log, tombstone)
        tombstone = tombstone.model_copy(update={"signature": key.sign(tombstone.content()).hex()})
        _drop_torn(log.folder / PRUNED)
        append_line(log.folder / PRUNED, tombstone.line())
        _cut(log, tombstone.count, left)
    return tombstone


def _droppable(
    lines: Sequence[bytes], checkpoints: Sequence[Checkpoint], before: datetime
) -> Sequence[bytes]:
    """The lines before a moment, up to one that is signed; never the last of the log."""
    signed = {checkpoint.count: checkpoint.head for checkpoint in checkpoints}
    end = 0
    for number, line in enumerate(lines[:-1], start=1):
        entry = AuditEntry.model_validate_json(line)
        if entry.at >= before:
            break
        if signed.get(entry.seq) == hashlib.sha256(line).hexdigest():
            end = number
    return lines[:end]


def _left(log: AuditLog, tombstone: Tombstone) -> Sequence[bytes]:
    """Return the lines of the log after those that are dropped.

    Raises:
        AuditError: If those are not what was exported: somebody else dropped them meanwhile.
    """
    lines = whole_lines(log.path)
    dropped = tombstone.count - AuditEntry.model_validate_json(lines[0]).seq + 1
    if dropped < 1 or hashlib.sha256(lines[dropped - 1]).hexdigest() != tombstone.head:
        raise AuditError(
            f"audit log {str(log.path)!r} was pruned by somebody else meanwhile: look at it again"
        )
    return lines[dropped:]


def _cut(log: AuditLog, count: int, left: Sequence[bytes]) -> None:
    """Drop entries and their checkpoints; that of the last dropped one stays."""
    signed = whole_lines(log.checkpoints_path)
    first = next(
        (place for place, line in enumerate(signed) if Checkpoint.model_validate_json(line).count >= count),
        len(signed),
    )
    _replace(log.checkpoints_path, signed[first:])
    _replace(log.path, left)


def _replace(path: Path, lines: Sequence[bytes]) -> None:
    part = path.with_suffix(".part")
    try:
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        leave_to_owner(descriptor, path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise AuditError(unwritable(path, error)) from error


def _drop_torn(path: Path) -> None:
    """Take away what a crash left of a statement: it was not made."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        _replace(path, whole_lines(path))
