"""What is a log, who writes to it, how much of it may go, and where there is room for that."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

import psutil

from watchkeeper.tools.actions.quarantine import BLOCK, PUNCHABLE
from watchkeeper.tools.durable import digest
from watchkeeper.tools.errors import PlanError
from watchkeeper.tools.fact import Raw
from watchkeeper.tools.folders import LedAstrayError, opened, path_of
from watchkeeper.tools.text import shown_name, size_text

KEEP_BYTES = 64 * 1024
SAMPLE_BYTES = 128 * 1024

_LOG_WORDS = frozenset({"log", "logs", "out", "err", "error", "errors", "trace", "debug", "access", "stdout"})
_LOG_WORDS |= {"stderr"}
_MAGIC = (
    (b"SQLite format 3\0", "a SQLite database"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"(\xb5/\xfd", "compressed with zstd"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x7fELF", "a program"),
    (b"REDIS", "a Redis database"),
)


@dataclass(frozen=True, slots=True)
class Room:
    """A folder that may hold what was moved away.

    Attributes:
        path: The folder (it may not exist yet).
        device: Of its file system.
        free: Bytes that this user may still write there.
        volatile: Whether it is in memory.
        writable: Whether this user may write there.
    """

    path: Path
    device: str
    free: int
    volatile: bool
    writable: bool

    def as_json(self) -> Raw:
        """Return it as JSON."""
        return {
            "path": str(self.path),
            "device": self.device,
            "free": self.free,
            "volatile": self.volatile,
            "writable": self.writable,
        }


def default_rooms() -> tuple[Path, ...]:
    """Return the folders that may hold what was moved away where the state folder has no room."""
    name = f"watchkeeper-quarantine-{os.geteuid()}"
    return tuple(dict.fromkeys((Path("/var/tmp") / name, Path(tempfile.gettempdir()) / name)))  # noqa: S108 (made private)


def ask_rooms(paths: Iterable[Path]) -> list[Room]:
    """Look how much room folders have."""
    rooms = []
    for path in paths:
        existing = path
        while not existing.exists():
            existing = existing.parent
        space = os.statvfs(existing)
        # What is there and is not a folder of this user's own is refused later, and another room may do.
        strange = path.is_symlink() or (path.exists() and path.lstat().st_uid != os.geteuid())
        rooms.append(
            Room(
                path=path,
                device=str(existing.stat().st_dev),
                free=space.f_bavail * space.f_frsize,
                volatile=_file_system(existing) in ("tmpfs", "ramfs"),
                writable=os.access(existing, os.W_OK | os.X_OK) and not strange,
            )
        )
    return rooms


def choose_room(raw: Raw, *, need: int, devices: set[str]) -> Room:
    """Choose where to move things: another file system first; the same one only with plenty of room.

    Raises:
        PlanError: If there is room nowhere.
    """
    listed = raw["rooms"]
    rooms = [
        Room(
            path=Path(str(r["path"])),
            device=str(r["device"]),
            free=int(str(r["free"])),
            volatile=bool(r["volatile"]),
            writable=bool(r["writable"]),
        )
        for r in (listed if isinstance(listed, list) else [])
        if isinstance(r, dict)
    ]
    usable = [room for room in rooms if room.writable]
    for room in usable:
        if room.device not in devices and room.free >= need:
            return room
    for room in usable:
        if room.free >= 2 * need:
            return room
    seen = "; ".join(
        f"{room.path} has {size_text(room.free)}" + ("" if room.writable else " and may not be written to")
        for room in rooms
    )
    raise PlanError(f"there is nowhere to move {size_text(need)} (compressed) to: {seen}")


def look_at(path: Path) -> Raw:
    """Look at a file; what stands in the way is told, not raised."""
    try:
        with opened(path, os.O_RDONLY) as handle:
            return _look_at(path, handle)
    except LedAstrayError as error:
        return {"problem": str(error.strerror)}
    except OSError as error:
        what = "it is a symbolic link" if path.is_symlink() else f"it cannot be read ({error.strerror})"
        return {"problem": what}


def _look_at(path: Path, handle: int) -> Raw:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        return {"problem": "it is not a regular file"}
    begin = _first_data(handle, status.st_size)
    sample = _sample(handle, begin, status.st_size)
    packed = len(zlib.compress(sample, 3)) / len(sample) if sample else 0.0
    return {
        "problem": "",
        # Of the open file, and not of its path, which may lead elsewhere by now.
        "resolved": path_of(handle),
        "device": str(status.st_dev),
        "inode": str(status.st_ino),
        "links": status.st_nlink,
        "size": status.st_size,
        "allocated": status.st_blocks * 512,
        "begin": begin,
        "head": digest(os.pread(handle, BLOCK, begin)),
        "kind": _kind(sample),
        "ratio": round(packed, 4),
        "file_system": _file_system(path),
        "writers": list(writers(status)),
    }


def refusal(path: str, file: Raw, raw: Raw) -> str:
    """Say why a file must not be touched; empty if it may be. Pure."""
    if file["problem"]:
        return str(file["problem"])
    resolved, pure = str(file["resolved"]), PurePath(path)
    if not pure.is_absolute() or ".." in pure.parts:
        return "its path must be absolute and without '..'"
    if path in _texts(raw, "configs") or resolved in _texts(raw, "configs"):
        return "it is a configuration file of a service"
    if PurePath(resolved).is_relative_to(str(raw["state"])):
        return "it belongs to Watchkeeper"
    logs = _texts(raw, "logs")
    beside_log = any(pure.parent == PurePath(log).parent for log in logs)
    in_data = any(PurePath(resolved).is_relative_to(folder) for folder in _texts(raw, "data"))
    if path not in logs and not beside_log and not in_data:
        return "it is neither a log of a service in the inventory, nor beside one, nor in a data folder"
    if path not in logs and not _named_like_a_log(pure.name):
        return "it is not listed as a log in the inventory and not named like one"
    if file["links"] != 1:
        return f"it has {file['links']} names (hard links), so other places use it too"
    if file["kind"]:
        return f"it is not a log: it is {file['kind']}"
    if file["file_system"] not in PUNCHABLE:
        return f"its file system ({file['file_system']}) cannot free a part of a file"
    _, end = reclaimable_range(file)
    listed = file["writers"]
    for writer in listed if isinstance(listed, list) else []:
        if isinstance(writer, dict) and not writer["append"] and int(str(writer["position"])) < end:
            return f"process {writer['pid']} ({writer['name']}) writes inside of it, not at its end"
    return ""


def reclaimable_range(file: Raw) -> tuple[int, int]:
    """Return the range that may go, in whole blocks; the newest part of a file stays. Pure."""
    size, begin = int(str(file["size"])), int(str(file["begin"]))
    return begin, max(begin, (size - KEEP_BYTES) // BLOCK * BLOCK)


def writers(status: os.stat_result) -> Iterable[Raw]:
    """Yield the processes that have a file open for writing, and how (``/proc/PID/fdinfo``)."""
    wanted = (status.st_dev, status.st_ino)
    for pid in psutil.pids():
        folder = Path(f"/proc/{pid}/fd")
        try:
            with os.scandir(folder) as handles:
                numbers = [entry.name for entry in handles if _identity(entry) == wanted]
            for number in numbers:
                info = (folder.parent / "fdinfo" / number).read_text(encoding="ascii")
                values = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
                flags = int(values["flags"], 8)
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    name = (folder.parent / "comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
                    yield {
                        "pid": pid,
                        "name": shown_name(name),
                        "append": bool(flags & os.O_APPEND),
                        "position": int(values["pos"]),
                    }
        except OSError:
            continue  # it has ended, or may not be looked at


def _identity(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        found = entry.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def writers_within(status: os.stat_result, end: int) -> str:
    """Name another process that writes before ``end``, wherever that is in the file; empty if none does."""
    for writer in writers(status):
        if writer["pid"] != os.getpid() and not writer["append"] and int(str(writer["position"])) < end:
            return f"process {writer['pid']} ({writer['name']})"
    return ""


def _first_data(handle: int, size: int) -> int:
    """Return where data begins: after the hole of an earlier reclaim."""
    try:
        return os.lseek(handle, 0, os.SEEK_DATA) // BLOCK * BLOCK
    except OSError:  # ENXIO: there is no data at all
        return size // BLOCK * BLOCK


def _sample(handle: int, begin: int, size: int) -> bytes:
    starts = {begin, max(begin, (begin + size) // 2), max(begin, size - SAMPLE_BYTES)}
    return b"".join(os.pread(handle, SAMPLE_BYTES, start) for start in sorted(starts))


def _kind(sample: bytes) -> str:
    """Say what a sample is if it is no text; empty if it is."""
    for magic, what in _MAGIC:
        if sample.startswith(magic):
            return what
    if b"\0" in sample:
        return "binary (it holds zero bytes)"
    if not sample:
        return ""
    odd = sum(sample.count(code) for code in range(32) if code not in (7, 8, 9, 10, 12, 13, 27))
    invalid = sample.decode("utf-8", errors="replace").count("\ufffd")
    if (odd + invalid) * 20 > len(sample):
        return "binary"
    return "" if b"\n" in sample else "one long line"


def _named_like_a_log(name: str) -> bool:
    words = re.split(r"[._-]", name.lower())
    return any(word in _LOG_WORDS or word.endswith("log") for word in words)


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds a path."""
    resolved = path.resolve()
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    for folder in (resolved, *resolved.parents):
        if folder in mounts:
            return mounts[folder]
    return ""


def _texts(raw: Raw, name: str) -> list[str]:
    values = raw[name]
    return [str(v) for v in values] if isinstance(values, list) else []
