"""Setting the beginning of a log aside without losing a byte: copy, sync, then punch a hole.

Truncating a log that is being written to loses what is appended between the last read and the truncation,
and putting the old content back before the new one has the same gap. Here nothing is truncated. The
range that was copied is punched out of the file (fallocate(2), FALLOC_FL_PUNCH_HOLE): its blocks are free
at once although writers have the file open, and the bytes after it, among them those being appended, are
never touched. To undo it the range is written back in place. Either step may be repeated after a crash at
any moment, with the same result. The price is the file's apparent size, which stays as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.tools.durable import folder_name, private_folder, sync_folder, write_durably

FOLDER = "quarantine"
"""Name of the folder of quarantines in the state of a host."""

CHUNK = 1024 * 1024
BLOCK = 4096
COMPRESSION_LEVEL = 3
PUNCHABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "overlay", "bcachefs"})

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h


class Stage(StrEnum):
    """How far one file has come."""

    PENDING = "pending"
    SAVED = "saved"
    CUT = "cut"
    RESTORED = "restored"


class Entry(BaseModel):
    """One file in the manifest.

    Attributes:
        path: Where it was.
        device: Of its file system. It and ``inode`` tell it from another file under the same name.
        inode: Its number there (as text: JSON numbers end at 2**53).
        begin: First byte of the range set aside.
        end: First byte after it.
        stage: How far it has come; written and synced *before* the next step is taken.
        sha256: Of the range.
        size: Apparent size of the file when it was saved.
        mtime_ns: When it was written last before it was saved (as text).
        allocated: Bytes of disk that it took when it was saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    device: str
    inode: str
    begin: int
    end: int
    stage: Stage = Stage.PENDING
    sha256: str = ""
    size: int = 0
    mtime_ns: str = "0"
    allocated: int = 0


class Manifest(BaseModel):
    """What a quarantine folder holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    entries: tuple[Entry, ...]


class DamagedQuarantineError(Exception):
    """What was set aside cannot be used (a human must decide)."""


class Quarantine:
    """The folder in which one plan keeps what it set aside.

    Args:
        root: Folder of all quarantines on that file system.
        key: Key of the plan.
    """

    def __init__(self, root: Path, key: str) -> None:
        self._root = root
        self._key = key
        self.folder = root / folder_name(key)

    def manifest(self) -> Manifest | None:
        """Read the manifest; None if nothing was begun.

        Raises:
            DamagedQuarantineError: If it cannot be read.
        """
        path = self.folder / "manifest.json"
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise DamagedQuarantineError(f"manifest {str(path)!r} cannot be read: {error!s:.200}") from error

    def begin(self, entries: tuple[Entry, ...]) -> Manifest:
        """Make the folder and write the first manifest, durably.

        Raises:
            OSError: If that is not possible.
        """
        private_folder(self._root)
        private_folder(self.folder)
        sync_folder(self._root)
        sync_folder(self._root.parent)
        manifest = Manifest(key=self._key, entries=entries)
        self._write(manifest)
        return manifest

    def advance(self, manifest: Manifest, index: int, entry: Entry) -> Manifest:
        """Replace one entry, durably.

        Raises:
            OSError: If it cannot be written.
        """
        entries = (*manifest.entries[:index], entry, *manifest.entries[index + 1 :])
        advanced = manifest.model_copy(update={"entries": entries})
        self._write(advanced)
        return advanced

    def save(self, index: int, handle: int, entry: Entry) -> Entry:
        """Copy the range of a file into the folder, durably, and read the copy back.

        Raises:
            OSError: If it cannot be copied.
            DamagedQuarantineError: If the range holds zero bytes (it is no text), is shorter than planned,
                or the copy is not what was read.
        """
        found = hashlib.sha256()
        try:
            with self.copy_of(index).open("xb") as raw:
                with gzip.GzipFile(
                    fileobj=raw, mode="wb", compresslevel=COMPRESSION_LEVEL, mtime=0
                ) as stream:
                    for chunk in read_range(handle, entry.begin, entry.end):
                        if b"\0" in chunk:
                            raise DamagedQuarantineError(f"{entry.path!r} holds zero bytes: it is no log")
                        found.update(chunk)
                        stream.write(chunk)
                raw.flush()
                os.fsync(raw.fileno())
            sync_folder(self.folder)
            if self.digest_of_copy(index) != found.hexdigest():
                raise DamagedQuarantineError(f"the copy of {entry.path!r} differs from what was read")
        except (OSError, DamagedQuarantineError):
            self.copy_of(index).unlink(missing_ok=True)
            raise
        status = os.fstat(handle)
        return entry.model_copy(
            update={
                "stage": Stage.SAVED,
                "sha256": found.hexdigest(),
                "size": status.st_size,
                "mtime_ns": str(status.st_mtime_ns),
                "allocated": status.st_blocks * 512,
            }
        )

    def digest_of_copy(self, index: int) -> str:
        """SHA-256 of what a copy holds.

        Raises:
            DamagedQuarantineError: If it is missing or damaged.
        """
        found = hashlib.sha256()
        for chunk in self.chunks(index):
            found.update(chunk)
        return found.hexdigest()

    def chunks(self, index: int) -> Iterator[bytes]:
        """Read a copy piece by piece.

        Raises:
            DamagedQuarantineError: If it is missing or damaged.
        """
        path = self.copy_of(index)
        try:
            with gzip.open(path, "rb") as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedQuarantineError(f"copy {str(path)!r} cannot be read: {error!s:.200}") from error

    def copy_of(self, index: int) -> Path:
        """Where the copy of a file is."""
        return self.folder / f"{index}.gz"

    def discard(self) -> None:
        """Remove the folder for good: after nothing was cut, or once nobody needs it any more."""
        for path in (*self.folder.glob("*.gz"), self.folder / "manifest.json"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _write(self, manifest: Manifest) -> None:
        write_durably(self.folder / "manifest.json", manifest.model_dump_json(indent=1).encode())


class Held(NamedTuple):
    """A quarantine that takes space.

    Attributes:
        quarantine: Its folder.
        key: Key of its plan; the name of its folder where that cannot be read.
        entries: What was set aside; none where that cannot be read.
        size: Bytes of disk that it takes.
        changed: When something of it was written or removed last, in seconds since 1970.
        damage: Why it cannot be read.
    """

    quarantine: Quarantine
    key: str
    entries: tuple[Entry, ...]
    size: int
    changed: float
    damage: str


def held_below(root: Path) -> Iterator[Held]:
    """Return the quarantines of a folder that hold copies, by their names.

    A folder that is not this user's alone is passed over: others may have laid it out to be read, or removed,
    through.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        status = root.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return
    for folder in sorted(root.iterdir()):
        held = _held_in(Quarantine(root, folder.name), folder)
        if held is not None:
            yield held


def _held_in(quarantine: Quarantine, folder: Path) -> Held | None:
    """Return what a folder holds; None where it is no quarantine, is empty, or is gone by now."""
    if quarantine.folder != folder or folder.is_symlink():
        return None
    try:
        copies = [path.lstat().st_blocks * 512 for path in folder.glob("*.gz")]
        changed = folder.stat().st_mtime
    except OSError:
        return None
    if not copies:
        return None
    key, damage = folder.name, ""
    entries: tuple[Entry, ...] = ()
    try:
        manifest = quarantine.manifest()
    except DamagedQuarantineError as error:
        damage = str(error)
    else:
        if manifest is None:
            damage = "its manifest is missing"
        else:
            key, entries = manifest.key, manifest.entries
    return Held(quarantine, key, entries, sum(copies), changed, damage)


def punch(handle: int, begin: int, end: int) -> None:
    """Free the blocks of a range; the file's size and all other bytes stay, and the range reads as zeros.

    Raises:
        OSError: If the file system cannot do that (nothing was changed).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while libc.fallocate64(handle, _PUNCH_HOLE | _KEEP_SIZE, begin, end - begin) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    os.fsync(handle)


def read_range(handle: int, begin: int, end: int) -> Iterator[bytes]:
    """Read a range piece by piece.

    Raises:
        DamagedQuarantineError: If the file ends before the range does.
    """
    position = begin
    while position < end:
        chunk = os.pread(handle, min(CHUNK, end - position), position)
        if not chunk:
            raise DamagedQuarantineError(f"the file ends at byte {position}, before byte {end}")
        position += len(chunk)
        yield chunk


def cut_state(handle: int, begin: int, end: int) -> bool | None:
    """Whether a range was punched out; None if that cannot be told.

    What is set aside is text and holds no zero byte, so its first and last block tell.
    """
    first = os.pread(handle, BLOCK, begin)
    last = os.pread(handle, BLOCK, end - BLOCK)
    if not first.strip(b"\0") and not last.strip(b"\0") and len(last) == BLOCK:
        return True
    return False if b"\0" not in first and b"\0" not in last and len(last) == BLOCK else None


def write_back(handle: int, begin: int, chunks: Iterator[bytes]) -> None:
    """Write saved bytes to where they were; only zeros and the same bytes are ever overwritten.

    Raises:
        DamagedQuarantineError: If something else was written there since (nothing more is written).
        OSError: If it cannot be written.
    """
    position = begin
    for chunk in chunks:
        present = os.pread(handle, len(chunk), position)
        if present != chunk:
            if len(present) != len(chunk) or not _is_part(present, chunk):
                raise DamagedQuarantineError(f"other content was written there since, near byte {position}")
            view = memoryview(chunk)
            while view:
                view = view[os.pwrite(handle, view, position + len(chunk) - len(view)) :]
        position += len(chunk)
    os.fsync(handle)


def _is_part(present: bytes, saved: bytes) -> bool:
    """Whether every block is either zeros or what was saved (a restoration may have been interrupted)."""
    blocks = range(0, len(saved), BLOCK)
    if all(
        not present[i : i + BLOCK].strip(b"\0") or present[i : i + BLOCK] == saved[i : i + BLOCK]
        for i in blocks
    ):
        return True
    # A write that was interrupted by a signal may end within a block.
    return all(p in (0, s) for p, s in zip(present, saved, strict=True))
