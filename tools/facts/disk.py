"""How full a file system is, and what fills it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.local import reason, require_local
from watchkeeper.tools.mounts import mount_of
from watchkeeper.tools.schema import folders_of, known
from watchkeeper.tools.text import shown_path, size_text

FULL_PERCENT = 95.0  # used: many programs stop here, and the rest may be reserved
FULL_FREE_PERCENT = 1.0  # of the inodes, or of the whole with what is reserved
FILLING_PERCENT = 85.0  # used: time to act before anything fails


class DiskUsageArguments(Arguments):
    """Any path on the file system."""

    path: Annotated[str, known("data", description="a folder or file on the file system")]


class UsageRaw(BaseModel):
    """What the kernel says of a file system (``statvfs(3)``), in bytes and inodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mount: str
    kind: str
    source: str
    read_only: bool
    size: int
    free: int
    available: int
    inodes: int
    inodes_free: int


class DiskUsageResult(Result):
    """How full a file system is.

    Attributes:
        path: The path asked for.
        mount: Where the file system is mounted.
        kind: Its type, e.g. ``ext4``.
        source: Its device.
        read_only: Whether nothing can be written at all.
        size_bytes: Of the whole.
        used_bytes: Of it.
        free_bytes: That programs without privileges can still write.
        used_percent: As ``df`` says it: of what is not reserved.
        inodes: How many there are; 0 where they are made as needed.
        inodes_used_percent: Of them.
    """

    path: str
    mount: str
    kind: str
    source: str
    read_only: bool
    size_bytes: int
    used_bytes: int
    free_bytes: int
    used_percent: float
    inodes: int
    inodes_used_percent: float

    @property
    def is_out_of_space(self) -> bool:
        """Whether the bytes are used up."""
        # What the kernel makes up as it goes, e.g. /proc, has no size and cannot be full.
        scarce = self.free_bytes < self.size_bytes * FULL_FREE_PERCENT / 100
        return self.used_percent >= FULL_PERCENT or scarce

    @property
    def is_out_of_inodes(self) -> bool:
        """Whether no further file can be made, however small."""
        return self.inodes > 0 and self.inodes_used_percent > 100 - FULL_FREE_PERCENT


def read_usage(path: Path) -> UsageRaw:
    """Read how full the file system is that holds a path.

    Raises:
        CollectError: If the path is missing or cannot be reached.
    """
    try:
        status = os.statvfs(path)
        mount = mount_of(path)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise CollectError(f"file system of {str(path)!r} cannot be read: {why}") from error
    unit = status.f_frsize
    return UsageRaw(
        mount=_utf8(mount.point),
        kind=mount.kind,
        source=_utf8(mount.source),
        read_only=mount.read_only,
        size=status.f_blocks * unit,
        free=status.f_bfree * unit,
        available=status.f_bavail * unit,
        inodes=status.f_files,
        inodes_free=status.f_ffree,
    )


class DiskUsage(Fact[DiskUsageArguments, DiskUsageResult]):
    """Ask the kernel how full the file system of a path is."""

    name = "disk.usage"
    summary = "how full the file system of a path is"
    kinds = frozenset({FindingKind.FILESYSTEM_FULL, FindingKind.FILESYSTEM_FILLING, FindingKind.CUSTOM})
    arguments_type = DiskUsageArguments
    result_type = DiskUsageResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Ask for each data folder and each folder of logs."""
        return [{"path": folder} for folder in folders_of(spec)]

    def collect(self, target: Target, arguments: DiskUsageArguments) -> Raw:
        """Ask the kernel.

        Raises:
            CollectError: If the path is missing or cannot be reached.
        """
        require_local(target, self.name)
        return read_usage(Path(arguments.path)).model_dump()

    def interpret(self, raw: Raw, arguments: DiskUsageArguments) -> DiskUsageResult:
        """Turn blocks into shares."""
        read = UsageRaw.model_validate(raw)
        used = read.size - read.free
        usable = used + read.available
        return DiskUsageResult(
            path=arguments.path,
            mount=read.mount,
            kind=read.kind,
            source=read.source,
            read_only=read.read_only,
            size_bytes=read.size,
            used_bytes=used,
            free_bytes=read.available,
            used_percent=round(100 * used / usable, 1) if usable else 0.0,
            inodes=read.inodes,
            inodes_used_percent=(
                round(100 * (read.inodes - read.inodes_free) / read.inodes, 1) if read.inodes else 0.0
            ),
        )

    def findings(self, result: DiskUsageResult, arguments: DiskUsageArguments) -> Iterator[Finding]:
        """Say whether the file system is full, or soon will be."""
        subject = shown_path(result.mount)
        path = shown_path(arguments.path)
        which = f"The file system {subject}" + ("" if path == subject else f", which holds {path},")
        room = f"{size_text(result.free_bytes)} of {size_text(result.size_bytes)} are free"
        if result.read_only:
            yield Finding(
                kind=FindingKind.CUSTOM,
                subject=subject,
                text=f"{which} is mounted read-only.",
                severity=Severity.WARNING,
            )
        elif result.is_out_of_inodes:
            yield Finding(
                kind=FindingKind.FILESYSTEM_FULL,
                subject=subject,
                text=(
                    f"{which} has no inodes left: {result.inodes_used_percent:.0f} % of them are used, "
                    "so no file can be made."
                ),
                severity=Severity.CRITICAL,
            )
        elif result.is_out_of_space:
            yield Finding(
                kind=FindingKind.FILESYSTEM_FULL,
                subject=subject,
                text=f"{which} is full: {result.used_percent:.0f} % is used, {room}.",
                severity=Severity.CRITICAL,
            )
        elif result.used_percent >= FILLING_PERCENT:
            yield Finding(
                kind=FindingKind.FILESYSTEM_FILLING,
                subject=subject,
                text=f"{which} is filling up: {result.used_percent:.0f} % is used, {room}.",
                severity=Severity.WARNING,
            )

    def describe(self, arguments: DiskUsageArguments) -> str:
        """Say of which path."""
        return f"how full the file system of {shown_path(arguments.path)} is"


def _utf8(text: str) -> str:
    """Make a name that is not UTF-8 fit for JSON."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
