"""Entries of the audit log in a file of their own, which can be checked without the site."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from watchkeeper.runtime.audit import AuditLog, sync_folder
from watchkeeper.runtime.audit_check import LogFiles, check_log, entry_problem, read_log
from watchkeeper.runtime.audit_keys import fingerprint, is_signed, load_private
from watchkeeper.runtime.audit_records import AuditEntry, AuditProblem
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.errors import AuditError
from watchkeeper.tools.canonical import canonical

FORMAT = 1


class ExportManifest(BaseModel):
    """What an export holds; its last line, signed with the site's key.

    Attributes:
        format: Layout of the file.
        first: Number of the first entry.
        last: Number of the last.
        previous: Hash of the entry before the first.
        head: Hash of the last entry.
        sha256: Of all lines before this one.
        exported_at: When (UTC).
        by: Who asked for it.
        public_key: The key that checks the signature, as PEM.
        key: SHA-256 of that key; compare it with a copy kept elsewhere.
        signature: Of all this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    first: int
    last: int
    previous: str
    head: str
    sha256: str
    exported_at: datetime
    by: str
    public_key: str
    key: str
    signature: str = ""

    def content(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self.model_dump(mode="json", exclude={"signature"}))


class _LastLine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: ExportManifest


class ExportReport(BaseModel):
    """What was found about an export.

    Attributes:
        ok: Whether it is as it was written.
        manifest: What it says of itself, where that can be read.
        problems: What is not right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ok: bool
    manifest: ExportManifest | None = None
    problems: tuple[AuditProblem, ...] = Field(default=())


def export_log(
    log: AuditLog,
    path: Path,
    *,
    by: str,
    since: datetime | None = None,
    until: datetime | None = None,
    now: Clock = utc_now,
) -> ExportManifest:
    """Write entries into a file, whole or not at all; a file that is there is not replaced.

    Args:
        log: The log.
        path: The file.
        by: Who asks for it.
        since: The first entry at or after this moment begins it.
        until: The first entry after that at or after this moment ends it, and is not in it.
        now: The time.

    Raises:
        AuditError: If the log is not sound, nothing is in that span, or the file cannot be written.
    """
    lines = whole(sound_files(log).log)
    first, end = _span(lines, since, until)
    return write_export(log, path, lines[first:end], by=by, now=now)


def write_export(
    log: AuditLog, path: Path, lines: Sequence[bytes], *, by: str, now: Clock = utc_now
) -> ExportManifest:
    """Write these lines of a sound log, which follow each other, with a signed manifest.

    Raises:
        AuditError: If there are none, or the file cannot be written.
    """
    if not lines:
        raise AuditError(f"audit log {str(log.path)!r} has no entries in that span: nothing was exported")
    private = load_private(log.keys)
    first, last = (AuditEntry.model_validate_json(line) for line in (lines[0], lines[-1]))
    body = b"".join(line + b"\n" for line in lines)
    public = private.public_key()
    manifest = ExportManifest(
        first=first.seq,
        last=last.seq,
        previous=first.previous,
        head=hashlib.sha256(lines[-1]).hexdigest(),
        sha256=hashlib.sha256(body).hexdigest(),
        exported_at=now(),
        by=by,
        public_key=public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(),
        key=fingerprint(public),
    )
    manifest = manifest.model_copy(update={"signature": private.sign(manifest.content()).hex()})
    _write_new(path, body + canonical({"manifest": manifest.model_dump(mode="json")}) + b"\n")
    return manifest


def verify_export(path: Path, *, key: str = "") -> ExportReport:
    """Check every hash, number and signature of an export, with nothing but the file.

    Args:
        path: The file.
        key: SHA-256 of the key that must have signed it; empty: whichever it names.

    Raises:
        AuditError: If the file cannot be read.
    """
    try:
        *lines, final = path.read_bytes().split(b"\n")
    except OSError as error:
        raise AuditError(f"export {str(path)!r} cannot be read: {error.strerror}") from error
    if final or not lines:
        return _broken(path, len(lines) + 1, "the file was cut: its last line is not whole")
    try:
        manifest = _LastLine.model_validate_json(lines[-1]).manifest
    except ValidationError:
        return _broken(path, len(lines), "is not the manifest: the end of the file was cut or edited")
    problems: list[AuditProblem] = []

    def found(line: int, what: str) -> None:
        problems.append(AuditProblem(file=path.name, line=line, what=what))

    public = _public(manifest)
    if public is None or fingerprint(public) != manifest.key:
        found(len(lines), "names a key that is none, or not the one that it says")
    elif not is_signed(public, manifest.signature, manifest.content()):
        found(len(lines), "its signature is not of the key that it names: it was edited")
    elif key and manifest.key != key.strip().lower():
        found(len(lines), f"is signed with another key than {key!r}: {manifest.key}")
    entries, previous = lines[:-1], manifest.previous
    for number, line in enumerate(entries, start=1):
        what = entry_problem(line, manifest.first + number - 1, previous)
        if what:
            found(number, what)
        previous = hashlib.sha256(line).hexdigest()
    if manifest.last - manifest.first + 1 != len(entries):
        found(
            len(lines),
            f"{manifest.last - manifest.first + 1} entries were exported, {len(entries)} are there",
        )
    if previous != manifest.head:
        found(len(entries), "is not the entry that was exported last")
    body = b"".join(line + b"\n" for line in entries)
    if hashlib.sha256(body).hexdigest() != manifest.sha256 and not problems:
        found(1, "the entries are not those that were exported")
    return ExportReport(ok=not problems, manifest=manifest, problems=tuple(problems[:20]))


def sound_files(log: AuditLog) -> LogFiles:
    """Return the lines of a log that is as it was written; others may write while it is checked.

    Raises:
        AuditError: With the first problem, if it was changed.
    """
    with log.still():
        files = read_log(log.folder, log.keys)
    report = check_log(files, log.folder, log.keys)
    if not report.ok:
        first = report.problems[0]
        raise AuditError(
            f"audit log {str(log.path)!r} is not as it was written ({first.file} line {first.line}: "
            f"{first.what}); see `watchkeeper audit verify`"
        )
    return files


def whole(lines: Sequence[bytes]) -> list[bytes]:
    """Return lines without their ends; a torn last one is left out."""
    return [line[:-1] for line in lines if line.endswith(b"\n")]


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a log without their ends; a torn last one is left out.

    Raises:
        AuditError: If it cannot be read.
    """
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuditError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _span(lines: Sequence[bytes], since: datetime | None, until: datetime | None) -> tuple[int, int]:
    times = [AuditEntry.model_validate_json(line).at for line in lines]
    first = next((n for n, at in enumerate(times) if since is None or at >= since), len(lines))
    end = next((n for n in range(first, len(lines)) if until is not None and times[n] >= until), len(lines))
    return first, end


def _write_new(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            raise AuditError(f"file {str(path)!r} is there already: name another, nothing is replaced")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise AuditError(f"export {str(path)!r} cannot be written: {error.strerror}") from error


def _public(manifest: ExportManifest) -> Ed25519PublicKey | None:
    try:
        key = serialization.load_pem_public_key(manifest.public_key.encode())
    except ValueError:
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def _broken(path: Path, line: int, what: str) -> ExportReport:
    return ExportReport(ok=False, problems=(AuditProblem(file=path.name, line=line, what=what),))
