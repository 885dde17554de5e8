"""File systems: which one holds a path, and who holds files of it open."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from watchkeeper.tools.text import COMM_LENGTH

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system, as the kernel lists it (``proc(5)``, ``mountinfo``)."""

    point: str
    kind: str
    source: str
    read_only: bool


def mount_of(path: Path) -> Mount:
    """Return the mounted file system that holds an existing path.

    Raises:
        OSError: If the path or the kernel's list cannot be read.
    """
    real = os.path.realpath(path)
    device = os.stat(real).st_dev  # noqa: PTH116 (a name, resolved already)
    best: Mount | None = None
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(" ")
        dash = fields.index("-", 6)
        point = _ESCAPED.sub(lambda found: chr(int(found.group(1), 8)), fields[4])
        inside = point == "/" or real == point or real.startswith(point + "/")
        # The longest wins, and of equal ones the last: it covers those below it. Device numbers do not
        # help: some file systems show another one in their files than in this list.
        if inside and (best is None or len(point) >= len(best.point)):
            options = {*fields[5].split(","), *fields[dash + 3].split(",")}
            best = Mount(point, fields[dash + 1], fields[dash + 2], "ro" in options)
    return best or Mount(_walk_up(real, device), "unknown", "unknown", read_only=False)


def _walk_up(real: str, device: int) -> str:
    path = Path(real)
    while path != path.parent and path.parent.stat().st_dev == device:
        path = path.parent
    return str(path)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a file open.

    Attributes:
        pid: Its number.
        name: As the kernel knows it; the process chooses it.
        writes: Whether it opened the file for writing.
        deleted: Whether the file has no name any more, so that its space is free only once it is closed.
        device: Number of the file system.
        inode: Number of the file on it.
        allocated: Bytes that it takes.
    """

    pid: int
    name: str
    writes: bool
    deleted: bool
    device: int
    inode: int
    allocated: int


def holders(device: int, inodes: Collection[int]) -> list[Holder]:
    """Return who has files of a file system open: the given ones, and those that were deleted.

    Processes that end meanwhile, or that this user may not look at, are left out.

    Args:
        device: Number of the file system.
        inodes: Numbers of the files.
    """
    found: list[Holder] = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue
        seen: dict[int, Holder] = {}
        for descriptor in descriptors:
            try:
                status = descriptor.stat()
            except OSError:
                continue
            deleted = status.st_nlink == 0 and status.st_blocks > 0
            if status.st_dev != device or not (deleted or status.st_ino in inodes):
                continue
            writes = _opened_for_writing(process, descriptor.name)
            before = seen.get(status.st_ino)
            seen[status.st_ino] = Holder(
                pid=int(process.name),
                name=_comm(process),
                writes=writes or (before is not None and before.writes),
                deleted=deleted,
                device=device,
                inode=status.st_ino,
                allocated=status.st_blocks * 512,
            )
        found += seen.values()
    return sorted(found, key=lambda holder: (holder.pid, holder.inode))


def _opened_for_writing(process: Path, descriptor: str) -> bool:
    try:
        lines = (process / "fdinfo" / descriptor).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), 0)
    return flags & os.O_ACCMODE != os.O_RDONLY


def _comm(process: Path) -> str:
    try:
        return (process / "comm").read_bytes()[:COMM_LENGTH].decode("utf-8", "backslashreplace").rstrip("\n")
    except OSError:
        return "?"
