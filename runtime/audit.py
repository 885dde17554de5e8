"""The audit log: append-only, chained by hashes, with signed checkpoints."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import JsonValue, ValidationError

from watchkeeper.runtime.audit_check import check_log, read_log
from watchkeeper.runtime.audit_keys import PRIVATE, create_keys, load_private
from watchkeeper.runtime.audit_records import (
    CHECKPOINTS,
    GENESIS,
    LOG,
    AuditEntry,
    AuditReport,
    Checkpoint,
)
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.errors import AuditError
from watchkeeper.tools.canonical import safe_json
from watchkeeper.tools.durable import make_kept_folder, open_kept
from watchkeeper.tools.redaction import redact

_Stamps = tuple[tuple[int, ...], ...]
"""What tells whether somebody else wrote the log, its checkpoints or the key."""

_TAIL = 1 << 12
"""Bytes at the end of the checkpoints that hold several of them."""


class AuditLog:
    """What was asked, decided and done, in the order in which it was.

    Every entry holds the hash of the one before and is on the disk when ``append`` returns; the count
    and the last hash are then signed into a separate file. An edit, a removed or moved entry and a cut
    tail are found by ``verify``. (Who can write both files *and* the key can forge all of it: keep a copy
    of the checkpoints elsewhere.)

    Several processes may append at once.

    Args:
        home: Folder of Watchkeeper's state; the log is in ``audit`` below it, the key in ``keys``. Both
            are made with the first entry.
        now: The time.
    """

    def __init__(self, home: Path, *, now: Clock = utc_now) -> None:
        self.folder = home / "audit"
        self.keys = home / "keys"
        self._now = now
        self._kept: tuple[_Stamps, Ed25519PrivateKey, int, str] | None = None

    @property
    def path(self) -> Path:
        """The log."""
        return self.folder / LOG

    @property
    def checkpoints_path(self) -> Path:
        """The signed checkpoints."""
        return self.folder / CHECKPOINTS

    def append(self, kind: str, data: JsonValue) -> AuditEntry:
        """Write an entry; secrets are taken out of it first.

        Raises:
            AuditError: If it cannot be written, or the log was changed by someone else.
        """
        with self.held():
            key, count, head = self._end()
            entry = AuditEntry(
                seq=count + 1, at=self._now(), kind=kind, data=safe_json(redact(data)), previous=head
            )
            line = entry.line()
            self._kept = None
            append_line(self.path, line)
            head = hashlib.sha256(line).hexdigest()
            self._sign(key, entry.seq, head)
            stamps = self._stamps()
            self._kept = None if stamps is None else (stamps, key, entry.seq, head)
        return entry

    def entries(self) -> Iterator[AuditEntry]:
        """Read the entries in their order; a torn last line is left out.

        Raises:
            AuditError: If a line is not an entry.
        """
        for number, raw in enumerate(_lines(self.path), start=1):
            if not raw.endswith(b"\n"):
                return
            try:
                yield AuditEntry.model_validate_json(raw)
            except ValidationError as error:
                raise AuditError(
                    f"audit log {str(self.path)!r} line {number} is not an entry; "
                    "see `watchkeeper audit verify`"
                ) from error

    def verify(self) -> AuditReport:
        """Check every hash, every number and every signature.

        Raises:
            AuditError: If the files cannot be read, or there is no key to check with.
        """
        with self.still():
            files = read_log(self.folder, self.keys)
        return check_log(files, self.folder, self.keys)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Read a state in which no entry is half written.

        Raises:
            AuditError: If the log cannot be read.
        """
        try:
            descriptor = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield
            return
        except OSError as error:
            raise AuditError(f"{str(self._lock_path)!r} cannot be read: {error.strerror}") from error
        try:
            # An entry that is being written right now must not look like a cut.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    @property
    def _lock_path(self) -> Path:
        return self.folder / "audit.lock"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody else write meanwhile.

        Raises:
            AuditError: If the log cannot be written.
        """
        try:
            make_kept_folder(self.folder)
            descriptor = open_kept(self._lock_path, os.O_RDWR)
        except OSError as error:
            raise AuditError(unwritable(self._lock_path, error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _end(self) -> tuple[Ed25519PrivateKey, int, str]:
        """The key, and the number and hash of the last entry, which is signed.

        Files that are still as this log left them are not read again.
        """
        if self._kept is not None and self._stamps() == self._kept[0]:
            return self._kept[1:]
        key = self._ready()
        last = self._last()
        if last is None:
            return key, 0, GENESIS
        entry, head, signed = last
        if not signed:
            # So that never more than one entry waits for its signature, and more are a forgery.
            self._sign(key, entry.seq, head)
        return key, entry.seq, head

    def _stamps(self) -> _Stamps | None:
        try:
            found = [path.stat() for path in (self.path, self.checkpoints_path, self.keys / PRIVATE)]
        except OSError:
            return None
        return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found)

    def _ready(self) -> Ed25519PrivateKey:
        has_log = self.path.exists() and self.path.stat().st_size > 0
        # A first checkpoint that a crash or a full disk cut short is none: nothing was recorded yet.
        if any(line.endswith(b"\n") for line in _lines(self.checkpoints_path, tail=_TAIL)):
            return load_private(self.keys)
        if has_log:
            raise AuditError(
                f"audit log {str(self.path)!r} has entries but no checkpoints: "
                f"{str(self.checkpoints_path)!r} was removed; restore it, or move the audit folder aside "
                "to start a new log"
            )
        # A key of an earlier log, moved aside, stays the site's key.
        key = load_private(self.keys) if (self.keys / PRIVATE).exists() else create_keys(self.keys)
        self._sign(key, 0, GENESIS)
        return key

    def _last(self) -> tuple[AuditEntry, str, bool] | None:
        """The last entry, its hash and whether it is signed, after a torn line was put aside.

        Raises:
            AuditError: If it does not fit the last checkpoint.
        """
        signed = self._last_checkpoint()
        torn = _torn_tail(self.path)
        if torn:
            self._put_aside(torn)
        line = _last_line(self.path)
        if line is None:
            if signed.count:
                raise AuditError(self._cut(signed.count, 0))
            return None
        try:
            entry = AuditEntry.model_validate_json(line)
        except ValidationError as error:
            raise AuditError(
                f"the last line of audit log {str(self.path)!r} is not an entry: it was edited; "
                "see `watchkeeper audit verify`"
            ) from error
        head = hashlib.sha256(line).hexdigest()
        if entry.seq < signed.count:
            raise AuditError(self._cut(signed.count, entry.seq))
        if entry.seq == signed.count and head != signed.head:
            raise AuditError(
                f"entry {entry.seq} of audit log {str(self.path)!r} was edited after it was signed; "
                "see `watchkeeper audit verify`"
            )
        follows = entry.seq == signed.count + 1 and entry.previous == signed.head
        if entry.seq > signed.count and not follows:
            raise AuditError(
                f"audit log {str(self.path)!r} holds entries after the {signed.count} signed ones that no "
                "crash can have left there; see `watchkeeper audit verify`"
            )
        return entry, head, entry.seq == signed.count

    def _put_aside(self, torn: bytes) -> None:
        """Keep the remains of a line that a crash tore, and end the log at the line before."""
        stamp = f"{self._now():%Y%m%dT%H%M%S%f}"
        try:
            with (self.folder / f"torn-{stamp}.bin").open("wb") as file:
                file.write(torn)
                file.flush()
                os.fsync(file.fileno())
            with self.path.open("r+b") as file:
                file.truncate(self.path.stat().st_size - len(torn))
                os.fsync(file.fileno())
        except OSError as error:
            raise AuditError(unwritable(self.path, error)) from error

    def _last_checkpoint(self) -> Checkpoint:
        whole = [line for line in _lines(self.checkpoints_path, tail=_TAIL) if line.endswith(b"\n")]
        if not whole:
            raise AuditError(
                f"{str(self.checkpoints_path)!r} holds no checkpoint: restore it, or move the audit folder "
                "aside to start a new log"
            )
        try:
            return Checkpoint.model_validate_json(whole[-1])
        except ValidationError as error:
            raise AuditError(
                f"the last line of {str(self.checkpoints_path)!r} is not a checkpoint: it was edited; "
                "see `watchkeeper audit verify`"
            ) from error

    def _sign(self, key: Ed25519PrivateKey, count: int, head: str) -> None:
        at = self._now()
        signature = key.sign(Checkpoint.content(count, head, at)).hex()
        torn = _torn_tail(self.checkpoints_path)
        if torn:
            try:
                with self.checkpoints_path.open("r+b") as file:
                    file.truncate(self.checkpoints_path.stat().st_size - len(torn))
            except OSError as error:
                raise AuditError(unwritable(self.checkpoints_path, error)) from error
        append_line(
            self.checkpoints_path, Checkpoint(count=count, head=head, at=at, signature=signature).line()
        )

    def _cut(self, signed: int, found: int) -> str:
        return (
            f"audit log {str(self.path)!r} was cut: {signed} entries were signed, {found} are there; "
            "nothing more is written to it; restore it from a backup, or move the audit folder aside to "
            "start a new log"
        )


def append_line(path: Path, line: bytes) -> None:
    """Write a whole line and have it on the disk, or leave the file as it was."""
    try:
        descriptor = open_kept(path, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise AuditError(unwritable(path, error)) from error
    try:
        size = os.fstat(descriptor).st_size
        try:
            rest = memoryview(line + b"\n")
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
            if size == 0:
                sync_folder(path.parent)
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise AuditError(unwritable(path, error)) from error
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the name of a new file on the disk, not its content alone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lines(path: Path, *, tail: int | None = None) -> Iterator[bytes]:
    """Lines of a file, a torn last one without its end; with ``tail`` only those of its last bytes."""
    try:
        with path.open("rb") as file:
            if tail is not None and path.stat().st_size > tail:
                file.seek(-tail, os.SEEK_END)
                file.readline()
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise AuditError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _last_line(path: Path) -> bytes | None:
    """The last line, without its end; None in an empty file."""
    for size in (1 << 14, 1 << 20, None):
        last = None
        for line in _lines(path, tail=size):
            last = line
        if last is not None:
            return last.rstrip(b"\n")
    return None


def _torn_tail(path: Path) -> bytes:
    """What stands after the last end of line: the remains of a write that a crash cut short."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return b""
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                return b""
            file.seek(0)
            return file.read().rpartition(b"\n")[2]
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise AuditError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def unwritable(path: Path, error: OSError) -> str:
    """Say that a file of the log cannot be written."""
    return (
        f"audit log {str(path)!r} cannot be written: {error.strerror}; nothing goes on unrecorded: "
        "free space there or check its permissions, and try again"
    )
